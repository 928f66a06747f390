"""The clock of the game's own database session, which fills times as `now()` and need not be in UTC.

What the game writes itself is UTC. The times of its rows and trades that the database fills bear the time of the
session's zone. Prices and positions may be filled in either way: which one, the trades beside them say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg

NO_TIME, _MOMENT, _QUARTER = timedelta(0), timedelta(minutes=1), timedelta(minutes=15)
#: No time zone is further from UTC; and so many rows are needed to tell one.
_FARTHEST_ZONE, _FEWEST_ROWS = timedelta(hours=14), 5
#: Rows that are written together lie so many milliseconds apart.
_TOGETHER_MS = 2000
_CLOCK = """
    SELECT count(*), percentile_disc(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY late)
    FROM (SELECT t."createdAt" - t."endTime" AS late FROM public.trajectories t WHERE {rows}) AS rows"""


def read_clock(conn: psycopg.Connection[Any], rows: str, parameters: Mapping[str, Any]) -> timedelta:
    """By how much the game's own `now()` is ahead of UTC, where it says so.

    A row's `createdAt`, as a trade's `executedAt`, is filled by the database in its session's time zone; its `endTime`
    is UTC and a moment earlier. Rows that all differ by the same quarters of an hour were written in such a session.

    Args:
        rows: which rows of `trajectories`, named `t`, are looked at.
    """
    row = conn.execute(_CLOCK.format(rows=rows).encode(), parameters).fetchone()
    if row is None or row[0] < _FEWEST_ROWS:
        return NO_TIME
    low, median, high = row[1]
    if high - low > _MOMENT:
        return NO_TIME
    ahead = _QUARTER * round(median / _QUARTER)
    return ahead if abs(median - ahead) <= _MOMENT and abs(ahead) <= _FARTHEST_ZONE else NO_TIME


def turn_back(frame: pd.DataFrame, time: str, ahead: timedelta) -> pd.DataFrame:
    """The frame with a column of times moved to UTC."""
    return frame.assign(**{time: (frame[time] - ahead).dt.as_unit("ms")}) if ahead and len(frame) else frame


def read_by_clock(
    read: Callable[[timedelta], pd.DataFrame], time: str, ahead: timedelta, trades: pd.Series[Any]
) -> pd.DataFrame:
    """Rows that are in UTC or in the session's time, whichever has more of them beside the trades.

    Args:
        read: reads the rows, taken to be ahead of UTC by so much, and gives them in UTC.
        time: the column of their times, as times or as epoch milliseconds.
        trades: when trades were executed; each writes such a row.
    """
    plain = read(NO_TIME)
    if not ahead:
        return plain
    turned = read(ahead)
    return turned if _count_beside(turned[time], trades) > _count_beside(plain[time], trades) else plain


def _count_beside(times: pd.Series[Any], trades: pd.Series[Any]) -> int:
    """How many trades have a time beside them."""
    known, at = np.sort(_milliseconds(times)), _milliseconds(trades)
    first = np.searchsorted(known, at - _TOGETHER_MS)
    return int((np.searchsorted(known, at + _TOGETHER_MS, side="right") > first).sum())


def _milliseconds(times: pd.Series[Any]) -> np.ndarray[Any, Any]:
    known = times.dropna()
    if known.dtype.kind == "f":
        return known.to_numpy(dtype="float64")
    return np.asarray(pd.DatetimeIndex(known).as_unit("ms").asi8)
