"""Columns matched with columns: the row with the same keys that is nearest in time, and functions of repeated texts.

Plain numpy, which costs microseconds where a window is small, as most are. What is matched, and why, is decided by
`core.outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]


def mapped(values: Array, function: Callable[[str], Any], missing: Any) -> Array:
    """A function's value of each text, called once for each that is different; `missing` where there is no text."""
    codes, uniques = pd.factorize(values)
    found = np.empty(len(uniques) + 1, dtype=object)
    found[:] = [*map(function, uniques), missing]
    each: Array = found[codes]
    return each


def taken(values: Array, rows: Array, missing: Any = np.nan) -> Array:
    """The values of these rows; `missing` where the row is -1."""
    extended = np.empty(len(values) + 1, dtype=values.dtype)
    extended[:-1], extended[-1] = values, missing
    found: Array = extended[rows]
    return found


def encoded(*columns: Array) -> list[Array]:
    """A number for each text, the same in all these columns; -1 where there is none."""
    codes, _ = pd.factorize(np.concatenate(columns))
    return np.split(codes.astype(np.int64), np.cumsum([len(column) for column in columns])[:-1])


def paired(first: Array, second: Array, width: int) -> Array:
    """A number for each pair of numbers, the second below `width`; -1 where one of them is -1."""
    pairs: Array = np.where((first < 0) | (second < 0), -1, first * width + second)
    return pairs


class InTime:
    """Rows with a number for their keys and a time, to be looked up by both; a row without keys (-1) is never found.

    Each look-up returns the number of a row, or -1 where there is none. Of rows at the same time the last one is found
    looking back, the first one looking ahead.
    """

    def __init__(self, keys: Array, at: Array) -> None:
        rows = np.flatnonzero(keys >= 0)
        self._at, self._order = at, rows[np.lexsort((at[rows], keys[rows]))]
        # A number that sorts as (keys, time) does: times are ranked among these.
        self._times = np.unique(at)
        self._width = len(self._times) + 1
        self._keys = keys[self._order]
        self._sorted = self._keys * self._width + np.searchsorted(self._times, at[self._order])

    def last(self, keys: Array, at: Array) -> Array:
        """The last row with the same keys up to each time."""
        rank = np.searchsorted(self._times, at, side="right") - 1
        return self._found(np.searchsorted(self._sorted, keys * self._width + rank, side="right") - 1, keys)

    def first(self, keys: Array, at: Array, strictly: bool = False) -> Array:
        """The first row with the same keys from each time on; `strictly` leaves out the very time."""
        rank = np.searchsorted(self._times, at, side="right" if strictly else "left")
        return self._found(np.searchsorted(self._sorted, keys * self._width + rank, side="left"), keys)

    def nearest(self, keys: Array, at: Array, within: int) -> Array:
        """The row with the same keys nearest in time, at most so far away; of two as near the earlier."""
        before, after = self.last(keys, at), self.first(keys, at)
        past = np.where(before >= 0, at - taken(self._at, before, 0), within + 1)
        ahead = np.where(after >= 0, taken(self._at, after, 0) - at, within + 1)
        found: Array = np.where(past <= ahead, before, after)
        found[np.minimum(past, ahead) > within] = -1
        return found

    def _found(self, places: Array, keys: Array) -> Array:
        places = np.where((places < 0) | (places >= len(self._order)) | (keys < 0), -1, places)
        return np.where(taken(self._keys, places, -2) == keys, taken(self._order, places, -1), -1)
