"""Agents that were forgotten: what the record still holds of them, from before that moment, is not read again.

Their ids are kept as hashes: whoever is forgotten is not listed by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from psycopg import Connection

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.ledger.specification import FORGOTTEN_AGENTS

_AGAIN = "ON CONFLICT (agent_sha256) DO UPDATE SET forgotten_at = now()"


def note_forgotten(conn: Connection[Any], agent: str) -> None:
    """Keep in mind that an agent was forgotten now."""
    values = {"agent_sha256": _hashed(agent)}
    conn.execute(FORGOTTEN_AGENTS.insert(values, _AGAIN), values)


def without_forgotten(
    conn: Connection[Any], rows: Iterable[TrajectoryRecord | Quarantined]
) -> Iterator[TrajectoryRecord | Quarantined]:
    """The rows without those of forgotten agents that began before their agent was forgotten."""
    forgotten = dict(conn.execute(FORGOTTEN_AGENTS.select("")).fetchall())
    for row in rows:
        at = forgotten.get(_hashed(row.agent_id)) if forgotten and isinstance(row, TrajectoryRecord) else None
        if at is None or (isinstance(row, TrajectoryRecord) and row.start_time > at):
            yield row


def _hashed(agent: str) -> str:
    return sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()
