"""Columns matched with columns: the row with the same keys that is nearest in time, and functions of repeated texts.

Plain numpy, which costs microseconds where a window is small, as most are. What is matched, and why, is decided by
`core.outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

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


def nearest(keys: list[Array], at: Array, right_keys: list[Array], right_at: Array, within: int) -> Array:
    """For each row the nearest one on the right with the same keys within so much time; -1 if there is none.

    Of two as near the earlier counts.
    """
    before = match(keys, at, right_keys, right_at, "backward")
    after = match(keys, at, right_keys, right_at, "forward")
    far = np.int64(within + 1)
    past = np.where(before >= 0, at - taken(right_at, before, 0), far)
    ahead = np.where(after >= 0, taken(right_at, after, 0) - at, far)
    found: Array = np.where(past <= ahead, before, after)
    found[np.minimum(past, ahead) > within] = -1
    return found


def match(
    keys: list[Array],
    at: Array,
    right_keys: list[Array],
    right_at: Array,
    way: Literal["backward", "forward"],
    strictly: bool = False,
) -> Array:
    """The row on the right with the same keys that is last up to `at`, or first from `at` on; -1 if there is none.

    Of rows at the same time the last counts, or the first. `strictly` leaves out the very time.
    """
    if not len(at) or not len(right_at):
        return np.full(len(at), -1)
    codes, right_codes = _codes(keys, right_keys)
    rows = np.flatnonzero(right_codes >= 0)
    order = rows[np.lexsort((right_at[rows], right_codes[rows]))]
    # A number that sorts as (keys, time) does: times are ranked among those on the right.
    times = np.unique(right_at)
    width = len(times) + 1
    sorted_keys = right_codes[order] * width + np.searchsorted(times, right_at[order])
    if way == "backward":
        rank = np.searchsorted(times, at, side="left" if strictly else "right") - 1
        found = np.searchsorted(sorted_keys, codes * width + rank, side="right") - 1
    else:
        rank = np.searchsorted(times, at, side="right" if strictly else "left")
        found = np.searchsorted(sorted_keys, codes * width + rank, side="left")
    inside = (found >= 0) & (found < len(order)) & (codes >= 0)
    candidate = np.where(inside, taken(order, np.where(inside, found, -1), -1), -1)
    same = inside & (taken(right_codes, candidate, -2) == codes)
    return np.where(same, candidate, -1)


def _codes(keys: list[Array], right_keys: list[Array]) -> tuple[Array, Array]:
    """A number for each combination of keys, the same on both sides; -1 where one is missing."""
    count = len(keys[0])
    total = np.zeros(count + len(right_keys[0]), dtype=np.int64)
    lacks = np.zeros(len(total), dtype=bool)
    for left, right in zip(keys, right_keys, strict=True):
        codes, uniques = pd.factorize(np.concatenate([left, right]))
        lacks |= codes < 0
        total = total * (len(uniques) + 1) + codes
    total[lacks] = -1
    return total[:count], total[count:]
