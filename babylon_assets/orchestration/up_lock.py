"""The files by which one `babylon up` serves a home, and one process plays its simulated game, at a time.

Their locks are the kernel's, and each names the process that holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from babylon_assets.domain.errors import PermanentError

NAME, GAME = "up.lock", "game.lock"


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold `<home>/up.lock`; the kernel lets go of it when this process ends, however it ends.

    Raises:
        PermanentError: another process of this home holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _held(home / NAME, f"`babylon up` already serves {home} as process"):
        yield


@contextmanager
def only_game(home: Path) -> Iterator[None]:
    """Hold `<home>/game.lock` while the simulated game of a home is played, as of `only_one`."""
    with _held(home / GAME, f"the simulated game of {home} is already played by process"):
        yield


def refuse_second_game(home: Path) -> None:
    """Refuse to begin to play a game that is played.

    Raises:
        PermanentError: another process of this home plays it.
    """
    if (home / GAME).is_file():
        with only_game(home):
            pass


@contextmanager
def _held(path: Path, held_already: str) -> Iterator[None]:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PermanentError(
                f"{held_already} {lock.read().strip() or '?'}; stop that one, or set BABYLON_HOME to another folder"
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
