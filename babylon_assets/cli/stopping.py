"""Ctrl-C and SIGTERM: they end every command within ten seconds, with one sentence.

Both raise KeyboardInterrupt in the main thread, so that locks are given back and children are ended on the way out. A
command that does not come to its end, because a library holds the thread or waits for another, is ended by a timer: a
killed process loses at most the step in progress. Commands that serve have handlers of their own while they do.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from babylon_assets.cli.terminal import errors

#: Until a command that was told to end is ended.
MOST_SECONDS = 8.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def install() -> None:
    """Let both signals end this process; one that was started ignoring SIGINT, as `cmd &` does, obeys it as well."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def exit_code() -> int:
    """128 and the signal's number, as shells have it."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def note(interruption: KeyboardInterrupt) -> None:
    """Take the signal's number from an interruption that says it: one that Dagster took did not come here."""
    if not _received:
        _take(*(interruption.args[:1] or (int(signal.SIGINT),)))


def was_told() -> bool:
    """Whether a signal told this process to end: what fails afterwards is a library's way of ending."""
    return bool(_received)


def say_stopped() -> None:
    """The one sentence."""
    names = {signal.SIGINT: " by Ctrl-C", signal.SIGTERM: " by SIGTERM"}
    by = names[signal.Signals(_received[0])] if _received else ""
    sentence = f"stopped{by}; what is done is kept, and the same command goes on from it"
    errors.print(sentence, highlight=False, soft_wrap=True)


def leave() -> None:
    """End this process at once with the code, where a signal told it to end.

    Threads of a library that still compute abort an interpreter that ends beneath them; what was registered for the
    end is done.
    """
    if not _received:
        return
    atexit._run_exitfuncs()
    with suppress(OSError):  # who read it is gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code())


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _take(number)
    raise KeyboardInterrupt


def _take(number: int) -> None:
    if not _received:
        timer = threading.Timer(MOST_SECONDS, _end)
        timer.daemon = True
        timer.start()
    _received.append(number)


def _end() -> None:
    say_stopped()
    sys.stderr.flush()
    os._exit(exit_code())
