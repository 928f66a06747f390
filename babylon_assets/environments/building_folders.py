"""Folders that appear whole: built beside their place and renamed, so that a killed process leaves no half of one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that gets its name at the end; after an exception it is removed.

    When another process has finished the same folder first, that one stays.
    """
    beside = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        _appear(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _appear(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
