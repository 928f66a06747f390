"""What the game's tables have of a window, in numbers: how much, from whom, and when it was last written.

Only counts and times are read, for as many windows as are asked about, in two queries. What the rows are made into is
decided in `source` and `outcomes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.babylon.game_record import hours_of, naive
from babylon_assets.environments.base import Presence

# Looks into the indexes on windowId and on (resolved, endDate); times beyond what Python can hold are clipped.
_TRAJECTORIES = """
    SELECT asked.id, count(t.agent), count(DISTINCT t.agent), least(max(t.at), timestamp '9999-12-30')
    FROM unnest(%s::text[], %s::timestamp[], %s::timestamp[]) AS asked (id, start, until)
    LEFT JOIN LATERAL (
        {placed}) AS t ON true
    GROUP BY asked.id"""
_BY_TIME = """SELECT "agentId" AS agent, "updatedAt" AS at FROM public.trajectories
        WHERE "endTime" >= asked.start AND "endTime" < asked.until"""
_BY_ID = f"""SELECT "agentId" AS agent, "updatedAt" AS at FROM public.trajectories WHERE "windowId" = asked.id
        UNION ALL
        {_BY_TIME} AND "windowId" IS NULL"""
_NOTES = """SELECT count(*), max(o."createdAt") AS newest FROM public.market_outcomes o
        WHERE o."windowId" >= asked.first AND o."windowId" <= asked.last"""
_NO_NOTES = "SELECT NULL::int8 AS count, NULL::timestamp AS newest"
# Numbers of each kind by themselves: a join of both would count each outcome once per market.
_OUTCOMES = """
    SELECT asked.id, noted.count, ending.count, ending.resolved,
           least(greatest(noted.newest, ending.newest), timestamp '9999-12-30')
    FROM unnest(%s::text[], %s::timestamp[], %s::timestamp[], %s::text[], %s::text[])
         AS asked (id, start, until, first, last)
    CROSS JOIN LATERAL (
        {notes}
    ) AS noted
    CROSS JOIN LATERAL (
        SELECT count(*), count(*) FILTER (WHERE m.resolved) AS resolved, max(m."updatedAt") AS newest
        FROM public."Market" m
        WHERE m.resolved IN (true, false) AND m."endDate" >= asked.start AND m."endDate" < asked.until
    ) AS ending"""


def presence(
    conn: psycopg.Connection[Any], windows: Sequence[str], grid: WindowGrid = HOURLY, *, notes: bool = True
) -> list[Presence]:
    """What there is of each of these windows, in their order; `notes`: the rows of `market_outcomes` are counted."""
    bounds = [grid.bounds(window) for window in windows]
    parameters = [list(windows), [naive(start) for start, _ in bounds], [naive(end) for _, end in bounds]]
    hours = [hours_of(grid.parse(window)) for window in windows]
    ends = [[span[0] for span in hours], [span[-1] for span in hours]]
    by_id = grid == HOURLY
    rows = {
        row[0]: row[1:]
        for row in conn.execute(_TRAJECTORIES.format(placed=_BY_ID if by_id else _BY_TIME).encode(), parameters)
    }
    outcomes = {
        row[0]: row[1:]
        for row in conn.execute(_OUTCOMES.format(notes=_NOTES if notes else _NO_NOTES).encode(), [*parameters, *ends])
    }
    return [_presence(window, rows[window], outcomes[window]) for window in windows]


def _presence(window: str, rows: tuple[Any, ...], outcomes: tuple[Any, ...]) -> Presence:
    many, agents, rows_newest = rows
    noted, markets, resolved, newest = outcomes
    counts = {"markets": markets, "markets_resolved": resolved}
    counts |= {} if noted is None else {"outcomes": noted}
    return Presence(window, many, agents, _aware(rows_newest), counts, _aware(newest))


def _aware(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
