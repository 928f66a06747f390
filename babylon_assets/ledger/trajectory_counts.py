"""What is asked of the trajectories kept of a window without reading them: counts, and whether others would come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.ledger.specification import QUARANTINED_TRAJECTORIES, RAW_TRAJECTORIES


def count_dropped(conn: Connection[Any], window: str) -> dict[str, int]:
    """How much of what was dropped within the trajectories of a window, by name, most first."""
    query = """
        SELECT part.name, sum(part.count::int8)::int8 FROM babylon_training.raw_trajectories
        CROSS JOIN LATERAL jsonb_each_text(dropped) AS part (name, count)
        WHERE window_id = %s GROUP BY 1 ORDER BY 2 DESC, 1"""
    return dict(conn.execute(query, [window]).fetchall())


def count_quarantined(conn: Connection[Any], window: str) -> dict[str, int]:
    """How many trajectories of a window could not be read, by reason, most first."""
    query = """
        SELECT reason, count(DISTINCT trajectory_id) FROM babylon_training.quarantined_trajectories
        WHERE window_id = %s GROUP BY 1 ORDER BY 2 DESC, 1"""
    return dict(conn.execute(query, [window]).fetchall())


def count_unread(conn: Connection[Any]) -> dict[str, int]:
    """How many trajectories of each window could not be read, by window; without those of which all could."""
    query = """
        SELECT window_id, count(DISTINCT trajectory_id) FROM babylon_training.quarantined_trajectories GROUP BY 1"""
    return dict(conn.execute(query).fetchall())


def count_npcs(conn: Connection[Any], window: str) -> int:
    """How many agents of a window have no account of their own."""
    query = """
        SELECT count(DISTINCT agent_id) FROM babylon_training.raw_trajectories
        WHERE window_id = %s AND attributes ->> 'npc' = 'true'"""
    row = conn.execute(query, [window]).fetchone()
    return 0 if row is None else int(row[0])


def are_kept(conn: Connection[Any], window: str, rows: Iterable[TrajectoryRecord | Quarantined]) -> bool:
    """Whether these rows are what is kept of a window beside what was imported; nothing is written."""
    raw, quarantined = RAW_TRAJECTORIES, QUARANTINED_TRAJECTORIES
    kept = raw.select("WHERE window_id = %s AND given IS NULL", "trajectory_id", "content_hash")
    refused = quarantined.select("WHERE window_id = %s AND NOT imported", "trajectory_id", "row_hash")
    imported = raw.select("WHERE window_id = %s AND given IS NOT NULL", "trajectory_id")
    before = {*conn.execute(kept, [window]).fetchall(), *conn.execute(refused, [window]).fetchall()}
    left = {name for (name,) in conn.execute(imported, [window])}
    now = {
        (row.trajectory_id, row.row_hash if isinstance(row, Quarantined) else row.content_hash)
        for row in rows
        if isinstance(row, Quarantined) or row.trajectory_id not in left
    }
    return before == now
