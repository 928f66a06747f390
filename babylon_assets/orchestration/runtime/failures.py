"""How the product's two kinds of failure become Dagster's: permanent ones stop, transient ones are tried again.

Which error is of which kind is decided in `domain.errors`; an error that is of neither kind passes through as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import dagster as dg
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from babylon_assets.domain.errors import BabylonError, MissingDependency, TransientError
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.ledger.windows import get_window, upsert_window
from babylon_assets.orchestration.metadata import harmless_text
from babylon_assets.orchestration.resources import Installation

_log = logging.getLogger(__name__)

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 2.0
#: How many failed windows one message names with their reasons; the failure's metadata has all of them.
NAMED = 10

_T = TypeVar("_T")


def attempt(work: Callable[[], _T], warn: Callable[[str], None]) -> _T:
    """Do a window's work; after a transient error at most three more times.

    The waits are 2, 4 and 8 seconds: long enough for a server that restarts, short beside a window. Each is said to the
    run and, as a command shows nothing of its run, to the product's own log.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait, left = state.upcoming_sleep, ATTEMPTS - state.attempt_number
        sentence = f"{describe_error(error)}; trying again in {wait:g} s, {left} times at most"
        warn(sentence)
        _log.warning("%s", sentence)

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(FIRST_WAIT_SECONDS),
        before_sleep=say,
        reraise=True,
    )

    def named_work() -> _T:
        try:
            return work()
        except Exception as error:
            named = named_error(error)
            if named is None or named is error:
                raise
            raise named from error

    return retrying(named_work)


def failure_reason(error: Exception) -> str | None:
    """A failure of either kind in words for a person; None for an error that the product does not name."""
    known = MissingDependency.of(error) if isinstance(error, ModuleNotFoundError) else error
    return harmless_text(str(known)) if isinstance(known, BabylonError) else None


def describe_error(error: BaseException | None) -> str:
    """An error in words that no log, page or table minds, whatever text of somebody else is in it.

    The product's own say what they are; of another, its kind is named.
    """
    return harmless_text(str(error) if isinstance(error, BabylonError) else f"{type(error).__name__}: {error}")


def failed_step(failures: Mapping[str, Exception], windows: int) -> Exception:
    """The error that a step ends with, from the windows that failed among all of its windows.

    A transient error, which the caller may try again, only when nothing else stands in the way.
    """
    reasons = {window: failure_reason(error) or describe_error(error) for window, error in failures.items()}
    listed = "; ".join(f"{window}: {reason}" for window, reason in list(reasons.items())[:NAMED])
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    text = f"{len(failures)} of {windows} windows failed, the others are done. {listed}{more}"
    if windows == 1:
        [text] = reasons.values()
    if all(isinstance(error, TransientError) for error in failures.values()):
        [first, *_] = failures.values()
        return first if windows == 1 else TransientError(text)
    return dg.Failure(description=text, metadata={"failed_windows": reasons}, allow_retries=False)


def mark_failed(
    context: dg.AssetExecutionContext,
    installation: Installation,
    window: str,
    error: Exception,
    reason: str,
    *,
    keep_dataset: bool = True,
) -> None:
    """Note a failure on the window, unless it may pass by itself; a window that has its checkpoint keeps its state.

    Where the database is what failed, the run's own record has to do. Without its dataset (`keep_dataset`) a window
    cannot be trained on, whoever asks for it.
    """
    if isinstance(error, TransientError):
        return
    try:
        with installation.connect() as conn:
            row = get_window(conn, window)
            if row is None or row.checkpoint_id is None:
                upsert_window(conn, window, status="failed", reason=reason)
                if not keep_dataset:
                    upsert_window(conn, window, dataset_id=None)
    except BabylonError as unwritten:
        context.log.warning(f"the failure could not be noted on the window: {unwritten}")
