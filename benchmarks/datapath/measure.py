"""How the bench measures: seconds of cpu, of this process and of the server's, and of the clock; medians of several."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of this process's cpu, of the clock, and of the cpu of the server's processes."""

    cpu: float
    wall: float
    server: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.wall + other.wall, self.server + other.server)


def measured(work: Callable[[], Any], server: int | None = None) -> Spent:
    """What the work takes; of the server, whose process id may be given, until its last process has ended."""
    before = 0.0 if server is None else _of_server(server)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if server is None:
        return Spent(cpu, wall)
    time.sleep(_ENDING)
    return Spent(cpu, wall, _of_server(server) - before)


#: Seconds that a session's process may take to end once its connection is closed.
_ENDING = 0.3


def _of_server(postmaster: int) -> float:
    """Seconds of cpu of PostgreSQL's main process, its children, and those that have ended."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == postmaster:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu(spent: Iterable[Spent]) -> float:
    """The median of the cpu seconds."""
    return statistics.median(each.cpu for each in spent)


def both(spent: Iterable[Spent]) -> float:
    """The median of the cpu seconds of this process and of the server together."""
    return statistics.median(each.cpu + each.server for each in spent)


def wall(spent: Iterable[Spent]) -> float:
    """The median of the clock's seconds."""
    return statistics.median(each.wall for each in spent)


def milliseconds(work: Callable[[], Any]) -> float:
    """The median of five times on the clock."""
    return 1000 * wall([measured(work) for _ in range(5)])
