"""Numbers about the trajectories kept of a window, beside how many there are."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def count_dropped(conn: Connection[Any], window: str) -> dict[str, int]:
    """How much of what was dropped within the trajectories of a window, by name, most first."""
    query = """
        SELECT part.name, sum(part.count::int8)::int8 FROM babylon_training.raw_trajectories
        CROSS JOIN LATERAL jsonb_each_text(dropped) AS part (name, count)
        WHERE window_id = %s GROUP BY 1 ORDER BY 2 DESC, 1"""
    return dict(conn.execute(query, [window]).fetchall())


def count_npcs(conn: Connection[Any], window: str) -> int:
    """How many agents of a window have no account of their own."""
    query = """
        SELECT count(DISTINCT agent_id) FROM babylon_training.raw_trajectories
        WHERE window_id = %s AND attributes ->> 'npc' = 'true'"""
    row = conn.execute(query, [window]).fetchone()
    return 0 if row is None else int(row[0])
