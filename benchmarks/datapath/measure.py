"""How the bench measures: seconds of this process's cpu and of the clock, medians of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of this process's cpu and of the clock."""

    cpu: float
    wall: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.wall + other.wall)


def measured(work: Callable[[], Any]) -> Spent:
    """What the work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def cpu(spent: Iterable[Spent]) -> float:
    """The median of the cpu seconds."""
    return statistics.median(each.cpu for each in spent)


def wall(spent: Iterable[Spent]) -> float:
    """The median of the clock's seconds."""
    return statistics.median(each.wall for each in spent)


def milliseconds(work: Callable[[], Any]) -> float:
    """The median of five times on the clock."""
    return 1000 * wall([measured(work) for _ in range(5)])
