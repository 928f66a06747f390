"""Ctrl-C and SIGTERM while this process executes a run: which of the two came, that its run is canceled, and that the
programs beside it are spared.

Dagster takes both signals while a run is executed, raises the same error for either, and fails a run that nobody asked
it to terminate. The programs that copy a step's output to the terminal are children of its group, which a terminal's
Ctrl-C reaches as well; Dagster ends them when the step does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution import compute_logs
from dagster._utils import interrupts

from babylon_assets.orchestration.runtime.ownership import OWNER_TAG, is_executed

INTERRUPTIONS = (KeyboardInterrupt, DagsterExecutionInterruptedError)
_CANCELED = "Ctrl-C or SIGTERM ended the command that executes this run."
_came: list[int] = []
_REPLACE = interrupts._replace_interrupt_signal
_TAIL = compute_logs.execute_posix_tail


@dataclass(frozen=True)
class _Noting:
    """A handler that notes which signal came before it does what it did."""

    handler: Callable[[int, Any], Any]

    def __call__(self, number: int, frame: Any) -> Any:
        _came.append(number)
        return self.handler(number, frame)


def install() -> None:
    """Let the runs of this process be interrupted as said above; safe to repeat."""
    interrupts._replace_interrupt_signal = _replace
    compute_logs.execute_posix_tail = _tail


def interruption() -> KeyboardInterrupt:
    """The interruption of a run, with the number of the signal that came."""
    return KeyboardInterrupt(*_came[-1:])


@contextmanager
def canceling(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """An interruption inside the block cancels the run, where this process executes it for a command."""
    try:
        yield
    except INTERRUPTIONS:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status is dg.DagsterRunStatus.STARTED and is_executed(run.tags.get(OWNER_TAG, "")):
            instance.report_run_canceling(run, _CANCELED)
        raise


def _replace(new_signal_handler: Any) -> None:
    handler = new_signal_handler
    _REPLACE(_Noting(handler) if callable(handler) and not isinstance(handler, _Noting) else handler)


@contextmanager
def _tail(path: str, stream: Any) -> Iterator[Any]:
    """As Dagster's, of programs that SIGINT does not reach: what is blocked here is blocked in them."""
    with ExitStack() as stack:
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pids = stack.enter_context(_TAIL(path, stream))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        yield pids
