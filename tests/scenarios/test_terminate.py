"""The UI's Terminate, while a launched run waits for its place in the pool: the wait ends, and nothing is held.

A run whose first step needs the place stays in Dagster's queue; one that has read its window waits in its own process.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._utils.concurrency import ConcurrencyKeyInfo

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Database, migrate
from babylon_assets.orchestration.runtime import fail_orphaned_runs, open_instance
from babylon_assets.orchestration.runtime.ownership import PLACE_TAG
from tests.gateways import wait_for
from tests.scenarios.processes import descendants

pytestmark = pytest.mark.soak
LAUNCH = """mutation ($params: ExecutionParams!) {
    launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } }
        ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } } }"""
TERMINATE = """mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"""


@pytest.fixture
def settings(tmp_path: Path, game_database: Database, tiny_base: Path) -> Settings:
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"dagster_port": probe.getsockname()[1], "gateway_port": other.getsockname()[1]}
    migrate(game_database)
    first = HOURLY.closed(datetime.now(UTC), 3)[0]
    return Settings(
        home=tmp_path,
        database_url=game_database.url,
        base_model=str(tiny_base),
        automation=False,
        window_start=first,
        **ports,
    )


@pytest.fixture
def environment(settings: Settings, game_database: Database) -> dict[str, str]:
    with open_instance(settings, game_database):
        return subprocess_environment(settings, game_database.dagster_url)


@pytest.fixture
def holder(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command that holds the place of the pool."""
    program = [sys.executable, "-m", "tests.orchestration.hanging"]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


@pytest.fixture
def up(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "babylon_assets", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "Dagster UI" in process.stdout.readline()
        yield process
        process.terminate()


def test_terminate_ends_the_wait_of_a_launched_run(
    settings: Settings, game_database: Database, holder: subprocess.Popen[str], up: subprocess.Popen[str]
) -> None:
    def ask(query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        reply = httpx.post(f"http://127.0.0.1:{settings.dagster_port}/graphql", json=body, timeout=60)
        return next(iter(reply.json()["data"].values()))

    selector = {
        "repositoryLocationName": "babylon_assets",
        "repositoryName": "__repository__",
        "pipelineName": "train_window",
    }
    tags = [{"key": "dagster/partition", "value": settings.window_start}]
    launched = ask(LAUNCH, params={"selector": selector, "executionMetadata": {"tags": tags}})
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    with open_instance(settings, game_database) as instance:

        def run() -> dg.DagsterRun:
            found = instance.get_run_by_id(run_id)
            assert found is not None
            return found

        def pool() -> ConcurrencyKeyInfo:
            return instance.event_log_storage.get_concurrency_info("training")

        wait_for(lambda: run().status is dg.DagsterRunStatus.STARTED and PLACE_TAG in run().tags, 90)
        wait_for(lambda: any(step.run_id == run_id for step in pool().pending_steps), 90)
        assert fail_orphaned_runs(instance) == []
        time.sleep(3)
        assert run().status is dg.DagsterRunStatus.STARTED  # it waits, and the holder holds
        before = descendants(up.pid)
        asked = time.monotonic()
        assert ask(TERMINATE, run=run_id)["__typename"] == "TerminateRunSuccess"
        wait_for(lambda: run().status is dg.DagsterRunStatus.CANCELED, 30)
        assert time.monotonic() - asked < 20
        assert all(step.run_id != run_id for step in pool().pending_steps)
        wait_for(lambda: len(descendants(up.pid)) < len(before), 30)
