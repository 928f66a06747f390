"""A run that waits for a place in a pool: it says for whom, sleeps, and ends when it is told to.

Dagster 1.13.27 computes the pause as the least of a list that holds 0, so that a waiting run asks without a pause, and
it keeps signals back until the step begins. `install` puts the wait below in the place of Dagster's; a contract test
says which of Dagster's names it rests on.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.plan.active import ActiveExecution
from dagster._utils.interrupts import raise_interrupts_as

from babylon_assets.ledger.waiting import noting_wait, tell_wait
from babylon_assets.orchestration.runtime.interruptions import canceling

#: Seconds between two looks at the pool, and between two times that the wait is said.
LOOK, EVERY = 1.0, 60.0
_ORIGINAL = ActiveExecution.sleep_til_ready


def install() -> None:
    """Let every run of this process wait for its pool as said above; safe to repeat."""
    ActiveExecution.sleep_til_ready = _sleep_until_ready  # type: ignore[method-assign, assignment]


def _sleep_until_ready(execution: ActiveExecution) -> None:
    context = execution._instance_concurrency_context
    if context is None or not context.has_pending_claims():
        with raise_interrupts_as(DagsterExecutionInterruptedError):
            _ORIGINAL(execution)
        return
    now = time.monotonic()
    said_at, began, words = getattr(execution, "_wait", (0.0, now, ""))
    if now >= said_at:
        said_at, words = now + EVERY, _holders_in_words(context)
        tell_wait(f"{words}; Ctrl-C or Terminate ends the wait")
    execution._wait = said_at, began, words  # type: ignore[attr-defined]
    with (
        noting_wait(words, began),
        canceling(context._instance, context._run_id),
        raise_interrupts_as(DagsterExecutionInterruptedError),
    ):
        time.sleep(LOOK)


def _holders_in_words(context: Any) -> str:
    """Which runs are in the pools that are full, and since when."""
    instance: dg.DagsterInstance = context._instance
    holders = []
    for pool in sorted(instance.event_log_storage.get_concurrency_keys()):
        info = instance.event_log_storage.get_concurrency_info(pool)
        if any(pending.run_id == context._run_id for pending in info.pending_steps):
            runs = sorted({slot.run_id for slot in info.claimed_slots})
            holders += [f"another run ({run[:8]}), which is {pool}{_since(instance, run)}" for run in runs]
    return " and ".join(holders) or "its turn"


def _since(instance: dg.DagsterInstance, run_id: str) -> str:
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.start_time is None:
        return ""
    return f" and began at {datetime.fromtimestamp(record.start_time, UTC):%Y-%m-%d %H:%M:%S} UTC"
