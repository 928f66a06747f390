"""Columns matched with columns: the row with the same keys that is nearest in time, and functions of repeated texts.

Plain numpy, which costs microseconds where a window is small, as most are. What is matched, and why, is decided by
`environments.babylon.outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]
_LARGEST = 2**62


def mapped(values: Array, function: Callable[[str], Any], missing: Any) -> Array:
    """A function's value of each text, called once for each that is different; `missing` where there is no text."""
    codes, uniques = pd.factorize(values)
    results = np.empty(len(uniques) + 1, dtype=object)
    results[:] = [*map(function, uniques), missing]
    row_values: Array = results[codes]
    return row_values


def take_rows(values: Array, rows: Array, missing: Any = np.nan) -> Array:
    """The values of these rows; `missing` where the row is -1."""
    extended = np.empty(len(values) + 1, dtype=values.dtype)
    extended[:-1], extended[-1] = values, missing
    result: Array = extended[rows]
    return result


def encoded(*columns: Array) -> tuple[list[Array], int]:
    """A number for each text, the same in all these columns, -1 where there is none; and how many texts there are."""
    codes, uniques = pd.factorize(np.concatenate(columns))
    return np.split(codes.astype(np.int64), np.cumsum([len(column) for column in columns])[:-1]), len(uniques)


def paired(first: Array, second: Array, count: int) -> Array:
    """A number for each pair of numbers, the second below `count`; -1 where one of them is -1."""
    pairs: Array = np.where((first < 0) | (second < 0), -1, first * count + second)
    return pairs


class InTime:
    """Rows with a number for their keys and a time, to be looked up by both; a row without keys (-1) is never found.

    Each look-up returns the number of a row, or -1 where there is none. Of rows at the same time the last one is found
    looking back, the first one looking ahead.
    """

    def __init__(self, keys: Array, at: Array) -> None:
        rows = np.flatnonzero(keys >= 0)
        self._at, self._begin, self._times = at, int(at.min(initial=0)), None
        self._span = int(at.max(initial=0)) - self._begin + 4
        if self._span * (int(keys.max(initial=0)) + 1) >= _LARGEST:  # then times are numbered first
            self._times, self._begin = np.unique(at), 0
            self._span = len(self._times) + 4
        places = keys[rows] * self._span + self._place(at[rows])
        order = np.argsort(places, kind="stable")
        self._order, self._sorted = rows[order], places[order]
        self._keys = keys[self._order]

    def last(self, keys: Array, at: Array) -> Array:
        """The last row with the same keys up to each time."""
        return self._matching_rows(self._after(keys, at) - 1, keys)

    def first(self, keys: Array, at: Array, strictly: bool = False) -> Array:
        """The first row with the same keys from each time on; `strictly` leaves out the very time."""
        return self._matching_rows(self._after(keys, at if strictly else at - 1), keys)

    def nearest(self, keys: Array, at: Array, within: int) -> Array:
        """The row with the same keys nearest in time, at most so far away; of two as near the earlier."""
        after = self._after(keys, at)
        earlier, later = self._matching_rows(after - 1, keys), self._matching_rows(after, keys)
        past = np.where(earlier >= 0, at - take_rows(self._at, earlier, 0), within + 1)
        ahead = np.where(later >= 0, take_rows(self._at, later, 0) - at, within + 1)
        values: Array = np.where(past <= ahead, earlier, later)
        values[np.minimum(past, ahead) > within] = -1
        return values

    def _place(self, at: Array) -> Array:
        """Where times lie among those of the rows, from 1 on; 0 is before all of them."""
        times = at if self._times is None else np.searchsorted(self._times, at, side="right") - 1
        place: Array = np.clip(times - self._begin + 1, 0, self._span - 2)
        return place

    def _after(self, keys: Array, at: Array) -> Array:
        """The place of the first row that is later, among those of the same keys."""
        return np.searchsorted(self._sorted, keys * self._span + self._place(at), side="right")

    def _matching_rows(self, places: Array, keys: Array) -> Array:
        places = np.where((places < 0) | (places >= len(self._order)) | (keys < 0), -1, places)
        return np.where(take_rows(self._keys, places, -2) == keys, take_rows(self._order, places, -1), -1)
