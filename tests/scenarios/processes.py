"""Processes of a running `babylon up`, as /proc shows them: who is whose child, which one plays which part."""

from __future__ import annotations

import os
from pathlib import Path

#: What tells a process of `up` by its command line.
MARKS = {
    "webserver": b"babylon_assets.orchestration.ui",
    "daemon": b"dagster._daemon",
    "gateway": b"\0serve\0",
    "simulation": b"\0simulate\0",
}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def started(pid: int) -> str | None:
    """When a process that lives was started; with its id it names it for good."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]


def children(pid: int) -> list[int]:
    """Those that any of its threads has started."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listed.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def memory(pid: int) -> int:
    """Resident bytes."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def child_of(up: int, role: str) -> int | None:
    """The child of `babylon up` that plays a part; None while there is none."""
    return next((pid for pid in children(up) if MARKS[role] in command_line(pid)), None)


def worker_of(up: int) -> int | None:
    """The process of a run that the daemon has launched."""
    below = descendants(child_of(up, "daemon") or 0)
    return next((pid for pid in below if b"spawn_main" in command_line(pid)), None)
