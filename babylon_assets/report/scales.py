"""From numbers to places in a drawing, whatever they are: none, one, equal, near the ends of what a float holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar

from markupsafe import Markup

from babylon_assets.domain.display_text import as_number

SMOOTHING = 5
#: Values that differ by less than this share of the largest differ by rounding only, and lie in one place.
SAME = 1e-9
#: A smaller difference has no power of ten of its own.
_SMALLEST = 1e-300

_T = TypeVar("_T")


class Scale(NamedTuple):
    """Places values from `low` to `high`, which differ, between two ends in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + (self.end - self.start) * share


def places(count: int, start: float, end: float) -> list[float]:
    """Where so many things lie between two ends, the same way apart; a single one lies in the middle."""
    return [start + (end - start) * (place / (count - 1) if count > 1 else 0.5) for place in range(count)]


def finite(values: Iterable[object]) -> list[float]:
    """The values that are numbers."""
    return [number for number in map(as_number, values) if not math.isnan(number)]


def differ(low: float, high: float) -> bool:
    """Whether two values differ by more than rounding."""
    return high / 2 - low / 2 > max(SAME / 2 * max(abs(low), abs(high)), _SMALLEST)


def bounds(values: Sequence[float], room: float = 0.0) -> tuple[float, float]:
    """The least and the greatest value, with a share of their difference to spare; around equal ones, some room."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high / 2 - low / 2) * (2 * room) if differ(low, high) else max(abs(low), abs(high)) * 0.05
    low, high = max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)
    return (low, high) if differ(low, high) else (low - 0.1, high + 0.1)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values that differ, about five of them: 1, 2 or 5 times a power of ten apart."""
    raw = high / 5 - low / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.75)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def mean(values: Sequence[float]) -> float:
    """The mean, also of numbers whose sum no float holds."""
    try:
        return fmean(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def trailing_means(values: Sequence[float], span: int = SMOOTHING) -> list[float]:
    """Mean of each value and those before it, at most `span` of them."""
    return [mean(values[max(0, end - span) : end]) for end in range(1, len(values) + 1)]


def smoothing_of(count: int) -> int:
    """Of how many values a line of so many is a mean: SMOOTHING, and more where many lie on a few pixels."""
    return max(SMOOTHING, count // 40)


def thin_out_near(placed: Iterable[tuple[float, _T]], gap: float) -> list[tuple[float, _T]]:
    """Those of some things, from left to right, that are no nearer than `gap` to the last one that is kept."""
    kept: list[tuple[float, _T]] = []
    for x, thing in placed:
        if not kept or x - kept[-1][0] >= gap:
            kept.append((x, thing))
    return kept


def thin_out(values: Sequence[_T], most: int) -> Sequence[_T]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[place * (len(values) - 1) // (most - 1)] for place in range(most)]


def points(places: Iterable[tuple[float, float]]) -> Markup:
    """Coordinates of a line; numbers only, hence never cut as a text would be."""
    return Markup(" ".join(f"{x:.1f},{y:.1f}" for x, y in places))
