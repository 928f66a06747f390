"""The Dagster instance of this installation: its folder, its storage, and what a crash left in it.

The folder is `<home>/dagster`, with a copy of the project's dagster.yaml; runs and events are in PostgreSQL. Nothing
here starts a process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.tags import GRPC_INFO_TAG

from babylon_assets.config.settings import Settings, write_events_in_batches
from babylon_assets.ledger.database import Database, ensure_dagster_database
from babylon_assets.orchestration.runtime import event_log
from babylon_assets.orchestration.runtime.ownership import (
    OWNER_TAG,
    PLACE_TAG,
    is_alive,
    is_executed,
    is_here,
    this_kernel,
)
from babylon_assets.orchestration.runtime.tags import PROCESS_TAG

_RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
#: A run that was made and whose process was gone, or had lost the database, before it said that it begins.
_NEVER_BEGUN = dg.DagsterRunStatus.NOT_STARTED


def dagster_home(settings: Settings) -> Path:
    """The folder of the instance, made if it is missing, with the project's dagster.yaml as it is now."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home / "dagster.yaml")
    return home


def open_instance(settings: Settings, database: Database) -> dg.DagsterInstance:
    """The instance that `babylon up` serves, for use in this process in a `with` block.

    Raises:
        SettingsError: Dagster's database is missing and the role may not create it.
    """
    ensure_dagster_database(settings)
    write_events_in_batches()
    config = {"postgres_url": database.dagster_url}
    storage = {"custom": {"module": event_log.MODULE, "class": event_log.Storage.__name__, "config": config}}
    ref = InstanceRef.from_dir(str(dagster_home(settings)), overrides={"storage": storage})
    return dg.DagsterInstance.from_ref(ref)


def this_process() -> str:
    """Names this process for `fail_orphaned_runs`: host, process id and the time it started, in kernel ticks."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_ticks(os.getpid())}"


def fail_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail the runs whose process is gone and free the slots they hold; gives their ids.

    A launched run carries PLACE_TAG once it has begun. It is orphaned when the place is here and the process is not;
    one of another host is left to Dagster's own monitoring. Before it begins, its code server's socket has to do.
    A run of a command carries PROCESS_TAG and OWNER_TAG; so does what repeats it, of which they say nothing. It is
    orphaned when no such process lives here, when it is this one and executes the run no more, or, where its process id
    means nothing here, when nobody holds the lock on its owner's token.
    """
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=[*_RUNNING, _NEVER_BEGUN]))
    orphans = [run for run in runs if _orphaned(instance, run)]
    for run in orphans:
        instance.report_run_failed(run, "The process of this run ended without a word; its window can be run again.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in orphans]


def _orphaned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    placed, _, place = run.tags.get(PLACE_TAG, "").partition(" ")
    if placed == run.run_id:
        kernel, _, name = place.partition(" ")
        return kernel == this_kernel() and not _lives(name)
    of_parent = run.parent_run_id is not None
    process, owner = (None, None) if of_parent else (run.tags.get(PROCESS_TAG), run.tags.get(OWNER_TAG))
    if owner is not None and process is not None:
        if not is_here(owner):
            return not is_alive(instance, owner)
        return not is_executed(owner) if process == this_process() else not _lives(process)
    if process is not None:
        return process.rsplit(":", 2)[0] == socket.gethostname() and not _lives(process)
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return bool(server.get("socket")) and not _answers(server["socket"])


def _lives(process: str) -> bool:
    """Whether a process of this kernel, as `this_process` names it, is there."""
    _, pid, started = process.rsplit(":", 2)
    return _start_ticks(int(pid)) == started


def _start_ticks(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is none of this id.

    Together with the id it names a process for good: the kernel gives an id out again, but not at the same tick.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        return probe.connect_ex(path) == 0
