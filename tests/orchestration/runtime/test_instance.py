"""The Dagster instance on PostgreSQL, and what is left in it by a process that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.runtime import Line, ownership, placing_executor
from babylon_assets.orchestration.runtime.event_log import EventLog
from babylon_assets.orchestration.runtime.instance import dagster_home, fail_orphaned_runs, open_instance, this_process
from babylon_assets.orchestration.runtime.interruptions import canceling
from babylon_assets.orchestration.runtime.tags import PROCESS_TAG
from tests.orchestration.hanging import WINDOW, definitions
from tests.scenarios.processes import descendants


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    return Settings(home=tmp_path, database_url=database.url)


@pytest.fixture
def instance(settings: Settings, database: Database) -> Iterator[dg.DagsterInstance]:
    with open_instance(settings, database) as instance:
        yield instance


@pytest.fixture
def holding(settings: Settings, database: Database, instance: dg.DagsterInstance) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a run, holding the slot of the pool."""
    environment = subprocess_environment(settings, database.dagster_url)
    program = [sys.executable, "-m", "tests.orchestration.hanging"]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_the_instance_is_that_of_the_projects_file(instance: dg.DagsterInstance, settings: Settings) -> None:
    assert isinstance(instance.event_log_storage, EventLog)
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled
    assert instance.run_retries_enabled
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    project = Path(__file__).parents[3] / "dagster.yaml"
    assert (dagster_home(settings) / "dagster.yaml").read_bytes() == project.read_bytes()


def test_no_password_is_written_into_the_home(settings: Settings, database: Database) -> None:
    home = dagster_home(settings)
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert database.dagster_url.encode() not in written


def test_a_living_run_is_left_alone(instance: dg.DagsterInstance, holding: subprocess.Popen[str]) -> None:
    assert fail_orphaned_runs(instance) == []


def test_a_killed_run_is_failed_and_its_slot_is_free(
    instance: dg.DagsterInstance, holding: subprocess.Popen[str]
) -> None:
    holding.kill()
    holding.wait()
    [orphan] = fail_orphaned_runs(instance)
    run = instance.get_run_by_id(orphan)
    assert run is not None and run.status is dg.DagsterRunStatus.FAILURE
    assert fail_orphaned_runs(instance) == []
    line = Line(definitions(hang=False), instance)
    assert line.materialize(WINDOW).seconds < 30
    assert instance.get_materialized_partitions(dg.AssetKey("model_checkpoints")) == {WINDOW}


def test_a_run_of_another_host_is_left_alone(instance: dg.DagsterInstance) -> None:
    tags = {PROCESS_TAG: f"elsewhere:{this_process().partition(':')[2]}"}
    run = instance.create_run_for_job(
        definitions(hang=False).resolve_job_def("train_window"), tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    assert fail_orphaned_runs(instance) == []
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_who_owns_a_run_elsewhere_is_known_by_a_lock_and_not_by_a_name_that_repeats(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another container on this host: the same name, a process id that another program has here, or none."""
    job = definitions(hang=False).resolve_job_def("train_window")
    running = dg.DagsterRunStatus.STARTED
    with monkeypatch.context() as elsewhere, ExitStack() as lives:
        elsewhere.setattr(ownership, "this_kernel", lambda: "boot:pid:[2]")
        owners = [lives.enter_context(ownership.owned(instance)) for _ in range(2)]
        tags = [{PROCESS_TAG: f"{socket.gethostname()}:7:1", **owner} for owner in owners]
        runs = [instance.create_run_for_job(job, tags=given, status=running) for given in tags]
        elsewhere.undo()
        assert fail_orphaned_runs(instance) == []
    assert set(fail_orphaned_runs(instance)) == {run.run_id for run in runs}


def test_a_dead_container_is_known_although_the_number_of_its_namespace_was_given_out_again(
    instance: dg.DagsterInstance,
) -> None:
    """The kernel numbers the next container's namespace of process ids as it did that of the one that has ended."""
    tags = {PROCESS_TAG: "another-container:999999999:7", ownership.OWNER_TAG: f"gone:{ownership.this_kernel()}"}
    job, running = definitions(hang=False).resolve_job_def("train_window"), dg.DagsterRunStatus.STARTED
    run = instance.create_run_for_job(job, tags=tags, status=running)
    assert fail_orphaned_runs(instance) == [run.run_id]


def test_a_launched_run_whose_server_is_gone_is_failed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    tags = {".dagster/grpc_info": f'{{"host": "localhost", "socket": "{tmp_path}/gone"}}'}
    run = instance.create_run_for_job(
        definitions(hang=False).resolve_job_def("train_window"), tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    assert fail_orphaned_runs(instance) == [run.run_id]


def launched_job() -> dg.JobDefinition:
    """The job as a launched run loads it, with the executor of the project's definitions."""

    @dg.op
    def look() -> None:
        pass

    @dg.job(executor_def=placing_executor)
    def looks() -> None:
        look()

    return looks


def test_a_launched_run_notes_where_it_is_executed(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(launched_job), instance) as result:
        assert result.success
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[ownership.PLACE_TAG] == f"{run.run_id} {ownership.this_kernel()} {this_process()}"


@pytest.mark.parametrize(
    ("place", "orphaned"),
    [
        ("{run} {kernel} {process}", False),  # it lives, whatever has become of its code server's socket
        ("{run} {kernel} host:999999999:7", True),
        ("{run} another:pid:[3] host:7:7", False),  # another host's: Dagster's own monitoring asks there
        ("of-the-run-that-it-repeats {kernel} host:999999999:7", True),  # then the socket says it, as before
    ],
)
def test_a_launched_run_is_judged_where_it_is(
    instance: dg.DagsterInstance, tmp_path: Path, place: str, orphaned: bool
) -> None:
    tags = {".dagster/grpc_info": f'{{"host": "localhost", "socket": "{tmp_path}/gone"}}'}
    job, running = definitions(hang=False).resolve_job_def("train_window"), dg.DagsterRunStatus.STARTED
    run = instance.create_run_for_job(job, tags=tags, status=running)
    known = {"run": run.run_id, "kernel": ownership.this_kernel(), "process": this_process()}
    instance.add_run_tags(run.run_id, {ownership.PLACE_TAG: place.format(**known)})
    assert (fail_orphaned_runs(instance) == [run.run_id]) is orphaned


def test_what_repeats_a_dead_commands_run_is_not_taken_for_it(instance: dg.DagsterInstance) -> None:
    """Dagster gives a run that repeats another all of its tags, those of the process that died among them."""
    job, running = definitions(hang=False).resolve_job_def("train_window"), dg.DagsterRunStatus.STARTED
    tags = {
        PROCESS_TAG: f"{socket.gethostname()}:999999999:7",
        ownership.OWNER_TAG: f"gone:{ownership.this_kernel()}",
    }
    dead = instance.create_run_for_job(job, tags=tags, status=running)
    again = instance.create_run_for_job(
        job, tags=tags, status=running, parent_run_id=dead.run_id, root_run_id=dead.run_id
    )
    assert fail_orphaned_runs(instance) == [dead.run_id]
    assert again.run_id in {run.run_id for run in instance.get_runs(filters=dg.RunsFilter(statuses=[running]))}


def test_an_unknown_error_names_the_run(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition(WINDOW, fmt="%Y-%m-%dT%H:00"))
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    job = dg.define_asset_job("train_window", selection=[broken])
    with pytest.raises(PermanentError, match=r"a bug.*see the Dagster run [0-9a-f-]{36} in the UI"):
        Line(dg.Definitions(assets=[broken], jobs=[job]), instance).materialize(WINDOW)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_cancels_the_run_and_no_child_hears_of_it(
    instance: dg.DagsterInstance, number: signal.Signals
) -> None:
    blocked: list[bool] = []
    others = set(descendants(os.getpid()))

    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition(WINDOW, fmt="%Y-%m-%dT%H:00"))
    def interrupted() -> None:
        context = dg.AssetExecutionContext.get()
        with canceling(context.instance, context.run_id):
            blocked.extend(_blocks_sigint(child) for child in descendants(os.getpid()) if child not in others)
            os.kill(os.getpid(), number)
            time.sleep(10)

    job = dg.define_asset_job("train_window", selection=[interrupted])
    with pytest.raises(KeyboardInterrupt) as told:
        Line(dg.Definitions(assets=[interrupted], jobs=[job]), instance).materialize(WINDOW)
    [run] = instance.get_runs()
    assert (run.status, told.value.args) == (dg.DagsterRunStatus.CANCELED, (number,))
    assert len(blocked) == 4 and all(blocked)  # of either stream, what copies it and what watches that


def _blocks_sigint(process: int) -> bool:
    masks = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("SigBlk")]
    return bool(int(masks[0].split()[1], 16) & 1 << signal.SIGINT - 1)
