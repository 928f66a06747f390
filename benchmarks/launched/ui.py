"""The Dagster UI of a home, asked over HTTP as a browser asks it: launch a run, launch a backfill, wait for its end."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.runtime import dagster_home
from babylon_assets.orchestration.services import Services

OURS, PLAIN = "babylon_assets", "plain"
_WORKSPACE = f"""load_from:
  - python_module: {{module_name: babylon_assets.definitions, location_name: {OURS}}}
  - python_module: {{module_name: benchmarks.launched.plain, location_name: {PLAIN}}}
"""
_RUN = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_RUN_STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_BACKFILL_STATUS = (
    "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
)
_RUNS = """query($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { endTime } } } }"""
_ENDED = {"SUCCESS", "FAILURE", "CANCELED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED"}
#: A backfill of plain assets takes half a minute per window.
MOST_SECONDS = 1200
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Seconds from asking for a backfill to the end of its first run, of its last one, and until the daemon noticed."""

    first: float
    last: float
    closed: float


class Ui:
    """Webserver and daemon over our code location and the plain one."""

    def __init__(self, services: Services) -> None:
        self._services, self._url = services, f"{services.url}/graphql"

    def run(self, location: str, job: str, window: str, assets: Sequence[str] = ()) -> float:
        """Launch a run of one window; seconds from asking for it to its end, in which it succeeded."""
        selector = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "jobName": job,
            "assetSelection": [{"path": [name]} for name in assets] or None,
        }
        tags = [{"key": "dagster/partition", "value": window}]
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        started = time.perf_counter()
        made = self._ask(_RUN, {"p": params})["launchRun"]
        return self._wait(_RUN_STATUS, made["run"]["runId"], started)

    def backfill(self, assets: Sequence[str], windows: Sequence[str]) -> Backfilled:
        """Launch an asset backfill, and wait for its end, in which all of it succeeded."""
        params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": list(windows)}
        at, started = time.time(), time.perf_counter()
        made = self._ask(_BACKFILL, {"p": params})["launchPartitionBackfill"]
        closed = self._wait(_BACKFILL_STATUS, made["backfillId"], started)
        [found] = self._ask(_RUNS, {"id": made["backfillId"]}).values()
        ends = sorted(run["endTime"] - at for run in found["results"])
        return Backfilled(ends[0], ends[-1], closed)

    def _wait(self, query: str, name: str, started: float) -> float:
        while True:
            [found] = self._ask(query, {"id": name}).values()
            if found["status"] in _ENDED:
                if "SUCCESS" not in found["status"]:
                    raise SystemExit(f"{name} ended as {found['status']}")
                return time.perf_counter() - started
            if self._services.stop_requested:
                raise KeyboardInterrupt
            if time.perf_counter() - started > MOST_SECONDS:
                raise SystemExit(f"{name} is {found['status']} after {MOST_SECONDS} seconds")
            time.sleep(LOOK_SECONDS)

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            told = json.load(reply)
        if told.get("errors") or "message" in next(iter(told["data"].values())):
            raise SystemExit(f"the UI refused: {told}")
        data: dict[str, Any] = told["data"]
        return data


@contextmanager
def opened_ui(settings: Settings, database: Database, folder: Path) -> Iterator[Ui]:
    """The UI and its daemon, up and stopped at the end; sensors are off, so that nothing else is launched."""
    workspace = folder / "workspace.yaml"
    workspace.write_text(_WORKSPACE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet = settings.replace(automation=False, dagster_port=port)
    environment = subprocess_environment(quiet, database.dagster_url)
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with Services(dagster_home(quiet), port, environment, workspace=workspace) as services:
        services.wait_until_ready()
        yield Ui(services)
