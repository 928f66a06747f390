"""The table `training_jobs`: every attempt to train, as a state machine.

    prepared -> submitted -> training -> trained
        any of the first three -> trained | failed | skipped

A state never goes back: the transition is checked by the UPDATE that makes it, so that of two writers one wins. What an
attempt does in a state is the business of `training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from psycopg import Connection, sql
from psycopg.rows import class_row

from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.policies import BRANCH, main_chain
from babylon_assets.ledger.specification import TRAINING_JOBS
from babylon_assets.ledger.table import json_value

#: An attempt on this machine that gave no sign of life for so long has died.
SILENT_SECONDS = 60.0

State = Literal["prepared", "submitted", "training", "trained", "failed", "skipped"]

# From which states a state may be entered; entering a running state again is a sign of life.
_BEFORE: Mapping[State, tuple[State, ...]] = {
    "submitted": ("prepared", "submitted"),
    "training": ("prepared", "submitted", "training"),
    "trained": ("prepared", "submitted", "training"),
    "failed": ("prepared", "submitted", "training"),
    "skipped": ("prepared", "submitted", "training"),
}


@TRAINING_JOBS.row
@dataclass(frozen=True, slots=True)
class Job:
    """One attempt to train a window.

    Attributes:
        external_id: the hosted service's id of the job, saved before waiting for it.
        usage: what it used, such as seconds and tokens; cost_usd what that came to.
        heartbeat: the last sign of life.
    """

    id: int
    window_id: str
    chain: str
    parent_id: str | None
    dataset_id: str | None
    state: State
    reason: str | None
    backend: str | None
    external_id: str | None
    checkpoint_id: str | None
    dagster_run_id: str | None
    usage: dict[str, Any] | None
    cost_usd: float | None
    created_at: datetime
    heartbeat: datetime


class JobColumns(TypedDict, total=False):
    """What `advance_job` can set besides the state."""

    reason: str | None
    external_id: str | None
    checkpoint_id: str | None
    usage: Mapping[str, Any] | None
    cost_usd: float | None


def start_job(
    conn: Connection[Any],
    *,
    window: str,
    chain: str,
    parent_id: str | None = None,
    dataset_id: str | None = None,
    dagster_run_id: str | None = None,
    backend: str | None = None,
) -> Job:
    """Add an attempt in the state `prepared`, in the caller's transaction or in one of its own."""
    values = {
        "window_id": window,
        "chain": chain,
        "parent_id": parent_id,
        "dataset_id": dataset_id,
        "state": "prepared",
        "dagster_run_id": dagster_run_id,
        "backend": backend,
    }
    with conn.transaction(), conn.cursor(row_factory=class_row(Job)) as cursor:
        job = cursor.execute(TRAINING_JOBS.insert(values, "RETURNING *"), values).fetchone()
    assert job is not None  # RETURNING of an INSERT
    return job


def advance_job(conn: Connection[Any], job_id: int, state: State, **columns: Unpack[JobColumns]) -> Job:
    """Bring an attempt into a state, with what is known by then, in the caller's transaction or in one of its own.

    Raises:
        CorruptLedger: when there is no such attempt, or its state does not lead there.
    """
    values: dict[str, Any] = dict(columns)
    if "usage" in values:
        values["usage"] = json_value(values["usage"])
    changes = sql.SQL("").join(sql.SQL(", {} = {}").format(sql.Identifier(n), sql.Placeholder(n)) for n in values)
    statement = sql.SQL(
        "UPDATE {} SET state = %(state)s, heartbeat = now(){} WHERE id = %(id)s AND state = ANY(%(before)s) RETURNING *"
    ).format(TRAINING_JOBS.identifier, changes)
    known = {**values, "state": state, "id": job_id, "before": list(_BEFORE.get(state, ()))}
    with conn.transaction(), conn.cursor(row_factory=class_row(Job)) as cursor:
        job = cursor.execute(statement, known).fetchone()
    if job is None:
        raise CorruptLedger(f"training job {job_id} cannot become {state}: it has ended or does not exist; run again")
    return job


def list_jobs(conn: Connection[Any], chain: str, window: str) -> list[Job]:
    """All attempts to train a window, oldest first."""
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        query = TRAINING_JOBS.select("WHERE chain = %s AND window_id = %s ORDER BY id")
        return cursor.execute(query, [chain, window]).fetchall()


def fail_orphaned_jobs(conn: Connection[Any], chain: str) -> int:
    """Fail a chain's and its branches' attempts whose process died, and count them.

    Call it while holding the chain's lock: then nobody trains.

    A submitted attempt is left: it goes on at the hosted service, and a later run takes it up by its external id.
    """
    statement = sql.SQL(
        "UPDATE {} SET state = 'failed', reason = 'the process that trained it ended without a word; its last sign "
        "of life was at ' || to_char(heartbeat AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC' "
        "WHERE split_part(chain, %s, 1) = %s AND state IN ('prepared', 'training')"
    ).format(TRAINING_JOBS.identifier)
    with conn.transaction():
        return conn.execute(statement, [BRANCH, main_chain(chain)]).rowcount


def beat(conn: Connection[Any], job_id: int) -> None:
    """Note a sign of life of an attempt that has not ended; of one that has, nothing."""
    statement = sql.SQL(
        "UPDATE {} SET heartbeat = now() WHERE id = %s AND state IN ('prepared', 'submitted', 'training')"
    ).format(TRAINING_JOBS.identifier)
    with conn.transaction():
        conn.execute(statement, [job_id])


def running_jobs(conn: Connection[Any], chain: str) -> list[tuple[Job, float]]:
    """A chain's and its branches' attempts that have not ended, each with the seconds since its last sign of life.

    The database's own clock is what both times are taken by.
    """
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        query = TRAINING_JOBS.select(
            "WHERE split_part(chain, %s, 1) = %s AND state IN ('prepared', 'submitted', 'training') ORDER BY id"
        )
        rows = cursor.execute(query, [BRANCH, main_chain(chain)]).fetchall()
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    return [(job, (row[0] - job.heartbeat).total_seconds()) for job in rows]


def get_job(conn: Connection[Any], job_id: int) -> Job:
    """An attempt by its id.

    Raises:
        CorruptLedger: when there is none.
    """
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        job = cursor.execute(TRAINING_JOBS.select("WHERE id = %s"), [job_id]).fetchone()
    if job is None:
        raise CorruptLedger(f"training job {job_id} does not exist; run again")
    return job


def submitted_job(conn: Connection[Any], chain: str) -> Job | None:
    """The chain's attempt that was handed to the hosted service and has not ended here; at most one, None without."""
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        query = TRAINING_JOBS.select("WHERE chain = %s AND state = 'submitted' ORDER BY id DESC LIMIT 1")
        return cursor.execute(query, [chain]).fetchone()


def spent_today(conn: Connection[Any], besides: int) -> float:
    """US dollars that the attempts begun since 00:00 UTC cost or are estimated to cost, one of them left out."""
    statement = sql.SQL(
        "SELECT coalesce(sum(cost_usd), 0) FROM {} WHERE created_at >= date_trunc('day', now(), 'UTC') AND id <> %s"
    ).format(TRAINING_JOBS.identifier)
    row = conn.execute(statement, [besides]).fetchone()
    assert row is not None  # an aggregate
    return float(row[0])


def hosted_step(conn: Connection[Any], chain: str) -> int:
    """The step at which the chain's last ended job left the hosted service's model; 0 before the first."""
    statement = sql.SQL(
        "SELECT coalesce(max((usage->>'hosted_step')::int), 0) FROM {} WHERE chain = %s AND state <> 'submitted'"
    ).format(TRAINING_JOBS.identifier)
    row = conn.execute(statement, [chain]).fetchone()
    assert row is not None  # an aggregate
    return int(row[0])
