"""The file by which one `babylon up` at a time serves a home. Its lock is the kernel's, and it names the process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from babylon_assets.domain.errors import PermanentError

NAME = "up.lock"


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold `<home>/up.lock`; the kernel lets go of it when this process ends, however it ends.

    Raises:
        PermanentError: another process of this home holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / NAME).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PermanentError(
                f"`babylon up` already serves {home} as process {lock.read().strip() or '?'}; "
                "stop that one, or set BABYLON_HOME to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def serving_process(home: Path) -> int | None:
    """The process that serves a home; None where none does."""
    if not (home / NAME).is_file():
        return None
    with (home / NAME).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read().strip()
            return int(text) if text.isdecimal() else None
    return None


def wait_until_free(home: Path, seconds: float) -> bool:
    """Wait until no process serves a home; False when one still does after so many seconds."""
    deadline = time.monotonic() + seconds
    while serving_process(home) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return serving_process(home) is None
