"""Folders that appear whole: built beside their place and renamed, so that a killed process leaves no half of one.

What a killed process was building is removed when the folder is built again: nobody holds its lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds within which a process surely has the lock of a folder that it made.
_LOCKED_WITHIN = 60


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that gets its name at the end; after an exception it is removed.

    When another process has finished the same folder first, that one stays.
    """
    for left in folder.parent.glob(f"{folder.name}.building-*"):
        _remove_abandoned(left)
    # Processes in containers that share a disk have the same numbers.
    beside = folder.with_name(f"{folder.name}.building-{uuid.uuid4().hex[:12]}")
    beside.mkdir(parents=True)
    lock = os.open(beside, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield beside
        _appear(beside, folder)
    finally:
        os.close(lock)
        shutil.rmtree(beside, ignore_errors=True)


def _remove_abandoned(left: Path) -> None:
    with suppress(OSError):  # another process removes it, or is building it
        if time.time() - left.stat().st_mtime < _LOCKED_WITHIN:
            return
        lock = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        finally:
            os.close(lock)


def _appear(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
