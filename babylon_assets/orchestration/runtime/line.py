"""Running assets in this process, for one window or a range of them, as runs that the instance records.

The definitions and the instance are made once and used for every window.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from babylon_assets.domain.errors import BabylonError, PermanentError, TransientError
from babylon_assets.orchestration.runtime import interruptions, pool_waiting
from babylon_assets.orchestration.runtime.instance import fail_orphaned_runs, this_process
from babylon_assets.orchestration.runtime.ownership import owned
from babylon_assets.orchestration.runtime.tags import LAUNCHED_BY_TAG, LINE_TAG, PROCESS_TAG, range_tags

#: The job of the whole line.
LINE = "train_window"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class LineRun:
    """One finished run of the line: its Dagster run id and its wall time in seconds."""

    run_id: str
    seconds: float


class Line:
    """The job of the whole line, ready to run window after window.

    Args:
        definitions: the very definitions that the UI serves.
        instance: where runs and events are recorded.
        launched_by: what the UI names as who launched the runs, such as `babylon demo`.
    """

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, launched_by: str = "babylon") -> None:
        pool_waiting.install()
        interruptions.install()
        self._tags = {PROCESS_TAG: this_process(), LAUNCHED_BY_TAG: launched_by}
        self._definitions = definitions
        self._job = definitions.resolve_job_def(LINE)
        self._instance = instance
        self._left_behind = False

    def materialize(self, window: str) -> LineRun:
        """Materialize the window's partition of every asset.

        Raises:
            TransientError: the run gave up after its retries; running it again may succeed.
            PermanentError: the run failed and a person must act; the message says what to do.
        """
        started = time.monotonic()
        with self._run_tags() as tags:
            result = self._job.execute_in_process(
                instance=self._instance,
                partition_key=window,
                raise_on_error=False,
                run_config=_QUIET,
                tags=tags,
            )
        self._left_behind = not result.success
        if not result.success:
            raise _failure_of(result)
        return LineRun(result.run_id, time.monotonic() - started)

    def run_range(self, assets: Sequence[str], first: str, last: str) -> str:
        """Materialize some assets of a range of windows in one run; gives its id. Errors as of `materialize`."""
        keys = [dg.AssetKey(name) for name in assets]
        job = self._definitions.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None  # they are among the definitions
        with self._run_tags() as tags:
            result = job.execute_in_process(
                instance=self._instance,
                asset_selection=keys,
                raise_on_error=False,
                run_config=_QUIET,
                tags={LINE_TAG: "window", **tags, **range_tags(first, last)},
            )
        self._left_behind = not result.success
        if not result.success:
            raise _failure_of(result)
        return result.run_id

    @contextmanager
    def _run_tags(self) -> Iterator[dict[str, str]]:
        """The tags of a run that is executed in the block.

        Where the database was lost during the run before, that run could not be brought to an end, nor give its place
        in a pool back: both are done first.
        """
        if self._left_behind:
            fail_orphaned_runs(self._instance)
        self._left_behind = True
        with owned(self._instance) as owner:
            yield {**self._tags, **owner}

    def materialized(self, asset: str) -> set[str]:
        """Windows of which an asset was made."""
        return self._instance.get_materialized_partitions(dg.AssetKey(asset))


def _failure_of(result: dg.ExecuteInProcessResult) -> BabylonError:
    """The product's own error behind a failed run; anything else becomes a permanent one that names the run.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM ended it, with the number of the signal.
    """
    where = f"Dagster run {result.run_id}"
    for event in result.all_events:
        ended = event.job_failure_data.error if event.is_job_failure else None
        ended = event.step_failure_data.error if event.is_step_failure else ended
        if event.event_type is dg.DagsterEventType.RUN_CANCELED or _is_interrupted(ended):
            raise interruptions.interruption()
        if not event.is_step_failure:
            continue
        failure = event.step_failure_data
        if failure.user_failure_data is not None:
            return PermanentError(failure.user_failure_data.description or where)
        causes = list(_causes(failure.error))
        for cause in causes:
            if cause.cls_name in _TRANSIENT:
                return TransientError(f"{_message(cause)} ({where})")
        if causes:
            return PermanentError(f"{_message(causes[-1])}; see the {where} in the UI (`babylon up`)")
    return PermanentError(f"the {where} failed; see it in the UI (`babylon up`)")


def _is_interrupted(error: SerializableErrorInfo | None) -> bool:
    names = {kind.__name__ for kind in interruptions.INTERRUPTIONS}
    return any(cause.cls_name in names for cause in _causes(error))


def _causes(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause


def _message(error: SerializableErrorInfo) -> str:
    """Of our own errors without the class that Dagster puts before it."""
    text = error.message.strip()
    return text.partition(": ")[2] if text.startswith("babylon_assets.domain.errors.") else text


_TRANSIENT = {TransientError.__name__, *(kind.__name__ for kind in TransientError.__subclasses__())}
