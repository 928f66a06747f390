"""Agents that were forgotten: what the record still holds of them, from before that moment, is not read again.

Their ids are kept as hashes: whoever is forgotten is not listed by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
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
