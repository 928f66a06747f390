"""Ctrl-C and SIGTERM: they end every command within ten seconds, with one sentence.

Until a command begins, and after it has ended, both end this process at once: there is nothing to give back. While it
runs they raise KeyboardInterrupt in the main thread, so that locks are given back and children are ended on the way
out. A command that does not come to its end, because a library holds the thread or waits for another, is ended by a
timer: a killed process loses at most the step in progress. Commands that serve have handlers of their own while they
do. Nothing heavy is imported here: this is the first module of every command.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

#: Until a command that was told to end is ended.
MOST_SECONDS = 8.0
#: Until an interruption that a library dropped comes again.
AGAIN_SECONDS = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []
_sentences: list[str] = []
_outcome = ["what is done is kept, and the same command goes on from it"]


def end_at_once() -> None:
    """From here on both signals end this process at once, with the one sentence.

    One that was started ignoring SIGINT, as `cmd &` does, obeys it as well.
    """
    for number in _SIGNALS:
        signal.signal(number, _end_now)


def raise_interruptions() -> None:
    """From here on both signals raise KeyboardInterrupt, where they ended this process at once until now."""
    if signal.getsignal(signal.SIGINT) is not _end_now:
        return
    sys.unraisablehook = _interrupt_again
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def ignore_at_the_end() -> None:
    """Let no signal change the exit code of a command that has ended, while Python takes itself apart.

    Whoever asks first asks for the very last: exit functions are called in reverse, and Python has no handlers later.
    """
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in _SIGNALS])


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


def begins_anew() -> None:
    """Note that the command keeps nothing of what it did when it is ended, for the one sentence."""
    _outcome[0] = "nothing of it is kept, and the same command begins anew"


def say_stopped() -> None:
    """The one sentence, once."""
    if _sentences:
        return
    names = {signal.SIGINT: " by Ctrl-C", signal.SIGTERM: " by SIGTERM"}
    by = names[signal.Signals(_received[0])] if _received else ""
    _sentences.append(f"stopped{by}; {_outcome[0]}")
    with suppress(OSError):  # who read it is gone
        sys.stderr.flush()
        os.write(2, f"{_sentences[0]}\n".encode())


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


def _end_now(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    say_stopped()
    os._exit(exit_code())


def _interrupt_again(dropped: Any) -> None:
    """An interruption that came where Python can raise nothing, as in a finalizer, comes again a little later."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    import threading

    again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, _received[0]))
    again.daemon = True
    again.start()


def _take(number: int) -> None:
    if not _received:
        import threading

        timer = threading.Timer(MOST_SECONDS, _end)
        timer.daemon = True
        timer.start()
    _received.append(number)


def _end() -> None:
    say_stopped()
    os._exit(exit_code())
