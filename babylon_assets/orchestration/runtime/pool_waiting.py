"""A run that waits for a place in a pool: it says for whom, sleeps, and ends when it is told to.

Dagster 1.13.27 computes the pause as the least of a list that holds 0, so that a waiting run asks without a pause, and
it keeps signals back until the step begins. `install` puts the wait below in the place of Dagster's; a contract test
says which of Dagster's names it rests on.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.plan.active import ActiveExecution
from dagster._utils.interrupts import raise_interrupts_as

from babylon_assets.orchestration.runtime.interruptions import canceling

_log = logging.getLogger(__name__)
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
    if now >= getattr(execution, "_said_at", 0.0):
        execution._said_at = now + EVERY  # type: ignore[attr-defined]
        _log.warning("waiting for %s; Ctrl-C or Terminate ends the wait", _pools_in_words(context))
    with canceling(context._instance, context._run_id), raise_interrupts_as(DagsterExecutionInterruptedError):
        time.sleep(LOOK)


def _pools_in_words(context: Any) -> str:
    """Which pools are full, and which runs hold their places."""
    instance: dg.DagsterInstance = context._instance
    pools = []
    for pool in sorted(instance.event_log_storage.get_concurrency_keys()):
        info = instance.event_log_storage.get_concurrency_info(pool)
        if any(pending.run_id == context._run_id for pending in info.pending_steps):
            holders = sorted({slot.run_id for slot in info.claimed_slots})
            pools.append(f"the pool {pool}, whose place the run {', '.join(map(_short, holders)) or 'of nobody'} holds")
    return " and ".join(pools) or "a place in a pool"


def _short(run_id: str) -> str:
    return run_id[:8]
