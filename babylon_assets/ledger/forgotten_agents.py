"""Agents that were forgotten: what the record, or a gateway's spool, still holds of them is not written again.

That is what is from before that moment. Their ids are kept as hashes: whoever is forgotten is not listed by name.
Whoever writes rows of agents reads the list in the same transaction, and forgetting waits for all who have read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, LiteralString

from psycopg import Connection, errors

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.ledger.specification import FORGOTTEN_AGENTS
from babylon_assets.ledger.waiting import wait_until

#: A condition on rows `written` of calls that holds where neither their agent nor, of a call that names a trajectory
#: alone, the agent of that was forgotten since they were received.
NOT_FORGOTTEN: LiteralString = """NOT EXISTS (
    SELECT FROM babylon_training.forgotten_agents AS f
    WHERE f.agent_sha256 = encode(sha256(convert_to(coalesce(
            written.agent_id, 'trajectory:' || written.trajectory_id), 'UTF8')), 'hex')
        AND coalesce(written.received_at, written.created_at) <= f.forgotten_at)"""
_LOCK: LiteralString = "LOCK TABLE babylon_training.forgotten_agents IN ACCESS EXCLUSIVE MODE NOWAIT"
_NOTE: LiteralString = """
    INSERT INTO babylon_training.forgotten_agents (agent_sha256, forgotten_at)
    SELECT encode(sha256(convert_to(name, 'UTF8')), 'hex'), clock_timestamp() FROM (
        SELECT %(agent)s::text AS name UNION
        SELECT 'trajectory:' || trajectory_id FROM babylon_training.raw_trajectories
        WHERE agent_id = %(agent)s) AS names
    ON CONFLICT (agent_sha256) DO UPDATE SET forgotten_at = excluded.forgotten_at"""


def wait_for_writers(conn: Connection[Any]) -> None:
    """Wait for all who write rows of agents, and have others wait, to the end of the caller's transaction."""

    def alone() -> bool:
        try:
            with conn.transaction():
                conn.execute(_LOCK)
        except errors.LockNotAvailable:
            return False
        return True

    wait_until(alone, lambda: "those who write trajectories and calls, which may be of the agent")


def note_forgotten(conn: Connection[Any], agent: str) -> None:
    """Keep in mind that an agent, with the trajectories of it that are kept, was forgotten now."""
    conn.execute(_NOTE, {"agent": agent})


def without_forgotten(
    conn: Connection[Any], rows: Iterable[TrajectoryRecord | Quarantined]
) -> Iterator[TrajectoryRecord | Quarantined]:
    """The rows without those of forgotten agents that began before their agent was forgotten.

    Who was forgotten is read now, not with the first row: the connection may be copying by then.
    """
    forgotten = dict(conn.execute(FORGOTTEN_AGENTS.select("")).fetchall())
    return (row for row in rows if not _is_forgotten(row, forgotten))


def _is_forgotten(row: TrajectoryRecord | Quarantined, forgotten: Mapping[str, datetime]) -> bool:
    if not forgotten or isinstance(row, Quarantined):
        return False
    at = forgotten.get(_hashed(row.agent_id))
    return at is not None and row.start_time <= at


def _hashed(agent: str) -> str:
    return sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()
