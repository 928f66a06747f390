"""How the product's two kinds of failure become Dagster's: permanent ones stop, transient ones are tried again.

Which error is of which kind is decided in `core.errors`; an error that is of neither kind passes through as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from babylon_assets.assets.installation import Installation
from babylon_assets.core.errors import BabylonError, MissingDependency, PermanentError, TransientError
from babylon_assets.store.windows import get_window, upsert_window

ATTEMPTS = 3
FIRST_WAIT_SECONDS = 2


@contextmanager
def told_apart(context: dg.AssetExecutionContext, installation: Installation) -> Iterator[None]:
    """Turn a permanent error into a failed step without retries, a transient one into at most three more attempts.

    The waits are 2, 4 and 8 seconds: long enough for a server that restarts, short beside the hour of a window. A
    window whose step failed for good is marked as failed in our tables, with the reason.
    """
    try:
        yield
    except TransientError as error:
        context.log.warning("%s: %s", type(error).__name__, error)
        wait = FIRST_WAIT_SECONDS * 2**context.retry_number
        raise dg.RetryRequested(max_retries=ATTEMPTS, seconds_to_wait=wait) from error
    except (PermanentError, ModuleNotFoundError) as error:
        known = MissingDependency.of(error) if isinstance(error, ModuleNotFoundError) else error
        told = f"{type(known).__name__}: {known}"
        _mark_failed(context, installation, told)
        raise dg.Failure(description=told, allow_retries=False) from error


def _mark_failed(context: dg.AssetExecutionContext, installation: Installation, reason: str) -> None:
    """Note the failure on the window; a window that has its checkpoint keeps its state.

    Where the database is what failed, the run's own record has to do.
    """
    window = context.partition_key
    try:
        with installation.connect() as conn:
            row = get_window(conn, window)
            if row is None or row.checkpoint_id is None:
                upsert_window(conn, window, status="failed", reason=reason)
    except BabylonError as error:
        context.log.warning("the failure could not be noted on the window: %s", error)
