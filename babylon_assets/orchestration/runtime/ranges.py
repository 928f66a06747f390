"""Running the stages of assets over a run's windows, one or a thousand: each is recorded as soon as it is done.

A stage makes one asset of one window. The stages of a window run in the order in which they are given; when one of them
fails, or a blocking check does, the later ones of **that window** are left out, and the other windows go on. At the end
the step fails and names the windows that failed: what is done stays done, and a run that continues this one does not
do it again. Where each window needs the one before it (`in_order`), the first that fails stops those after it. What a
stage does lives in the asset's own module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG
from dagster._core.storage.tags import EXTERNALLY_MANAGED_ASSETS_TAG

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.time_left import describe_time_left
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.orchestration.metadata import CODE_VERSION, only_shown
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.failures import (
    attempt,
    describe_error,
    failed_step,
    failure_reason,
    mark_failed,
)
from babylon_assets.orchestration.runtime.interruptions import canceling
from babylon_assets.orchestration.runtime.provenance import input_tags
from babylon_assets.orchestration.runtime.resume import done_before

#: What the body of an asset yields; values are in PostgreSQL already.
Outputs = Iterator[dg.Output[None]]
#: How often a long run says how far it is.
SAY_EVERY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What a stage made of a window.

    Attributes:
        metadata: of the materialization.
        checks: results of the asset's checks, each with its name; a blocking one that failed stops the window.
        data_version: names the content; the same content has the same version.
        made_from: data versions of what it was made from, by asset.
        observed: metadata of other windows of the asset that changed with it, by window.
    """

    metadata: Mapping[str, Any]
    checks: Sequence[dg.AssetCheckResult] = ()
    data_version: str | None = None
    made_from: Mapping[str, str] = field(default_factory=dict)
    observed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One asset of a step: how it is declared, and what makes one window of it.

    Attributes:
        checks: declarations of its checks; each has a result in every `WindowResult`.
        make: makes a window, from the installation, the window's id and the id of the run.
    """

    spec: dg.AssetSpec
    checks: Sequence[dg.AssetCheckSpec]
    make: Callable[[Installation, str, str], WindowResult]

    @property
    def name(self) -> str:
        return self.spec.key.path[-1]


class CheckFailed(PermanentError):
    """A blocking check failed: nothing may be made from this window until a person acted or time passed."""


def run_windows(
    context: dg.AssetExecutionContext, installation: Installation, stages: Sequence[Stage], *, in_order: bool = False
) -> Outputs:
    """Run the selected stages over the run's windows, then hand over the outputs, so that downstream steps follow.

    Args:
        stages: those that the run did not select, nor a check of theirs, are left out.
        in_order: a window is made from the one before it: stop at the first that fails.

    Raises:
        dagster.Failure: windows failed; it names them.
        TransientError: as that, where every failure may pass by itself.
    """
    selected = context.selected_asset_keys
    checked = selected | {check.asset_key for check in context.selected_asset_check_keys}
    chosen = [stage for stage in stages if stage.spec.key in checked]
    windows, failures, clock = list(context.partition_keys), {}, _Clock(context, len(context.partition_keys))
    _refuse_future(windows, installation.settings.windows)
    with canceling(context.instance, context.run_id), installation.reusing_connections():
        done = done_before(context, selected & {stage.spec.key for stage in chosen})
        for place, window in enumerate(windows):
            try:
                if window not in done:
                    _run_window(context, installation, window, chosen)
            except Exception as error:
                failures[window] = _record_failure(context, installation, window, error, alone=len(windows) == 1)
                if in_order:
                    failures |= _windows_left_out(windows[place + 1 :], window)
                    break
            clock.tick(place + 1, len(failures))
            with only_shown("how far the run is"):
                installation.heard(place + 1, len(windows), len(failures))
    if failures:
        raise failed_step(failures, len(windows))
    yield from _outputs(context, chosen)


def _refuse_future(windows: Sequence[str], grid: WindowGrid) -> None:
    """Refuse a run of a window that has not begun, as Dagster's API can launch it, before anything is written of it.

    Raises:
        dagster.Failure: naming the window.
    """
    for window in windows:
        if (start := grid.parse(window).start) > _now():
            reason = f"{window} has not begun; materialize it when it is over, after {start:%Y-%m-%d %H:%M} UTC"
            raise dg.Failure(description=reason, allow_retries=False)


def _now() -> datetime:
    return datetime.now(UTC)


def _outputs(context: dg.AssetExecutionContext, stages: Sequence[Stage]) -> Outputs:
    """An output for each asset and each check that the run selected: a step without them looks unfinished to Dagster.

    The values, the materializations and the results of the checks are written already.
    """
    with _own_events(context):
        for key in (stage.spec.key for stage in stages if stage.spec.key in context.selected_asset_keys):
            yield dg.Output(None, output_name=context.output_for_asset_key(key))
        for name, spec in context.assets_def.check_specs_by_output_name.items():
            if spec.key in context.selected_asset_check_keys:
                yield dg.Output(None, output_name=name)


def _run_window(
    context: dg.AssetExecutionContext, installation: Installation, window: str, stages: Sequence[Stage]
) -> None:
    """Run a window's stages, and record those that were done, whatever became of the others."""
    done: dict[str, WindowResult] = {}
    try:
        for stage in stages:
            with only_shown("what is done now"):
                installation.begins(stage.name, window)
            work = partial(stage.make, installation, window, context.run_id)
            done[stage.name] = attempt(work, context.log.warning)
            _stop_at_blocking(context, stage.name, done[stage.name])
    finally:
        versions = {name: result.data_version for name, result in done.items() if result.data_version is not None}
        for name, result in done.items():
            _record(context, name, window, result, {**versions, **result.made_from}, installation.settings.windows)


def _record(
    context: dg.AssetExecutionContext,
    name: str,
    window: str,
    outcome: WindowResult,
    used: Mapping[str, str],
    windows: WindowGrid,
) -> None:
    """Write the materialization of a window and the results of its checks, in one transaction.

    One for each asset: the next one names this one's event among what it was made from.
    """
    key = dg.AssetKey(name)
    tags = input_tags(context.instance, key, set(context.assets_def.asset_deps[key]), window, used, windows)
    tags[CODE_VERSION_TAG] = CODE_VERSION
    if outcome.data_version is not None:
        tags[DATA_VERSION_TAG] = outcome.data_version
    with _together(context.instance):
        context.log_event(dg.AssetMaterialization(key, partition=window, metadata=outcome.metadata, tags=tags))
        for other, seen in outcome.observed.items():
            context.log_event(dg.AssetObservation(key, partition=other, metadata=seen))
        for result in outcome.checks:
            context.log_event(_evaluation(context, key, window, result))


def _evaluation(
    context: dg.AssetExecutionContext, key: dg.AssetKey, window: str, result: dg.AssetCheckResult
) -> dg.AssetCheckEvaluation:
    check = dg.AssetCheckKey(key, str(result.check_name))
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=check.name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=context.assets_def.get_spec_for_check_key(check).blocking,
        partition=window,
    )


def _stop_at_blocking(context: dg.AssetExecutionContext, name: str, outcome: WindowResult) -> None:
    for result in outcome.checks:
        spec = context.assets_def.get_spec_for_check_key(dg.AssetCheckKey(dg.AssetKey(name), str(result.check_name)))
        if spec.blocking and not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
            raise CheckFailed(f"the check {spec.name} of {name} failed: {result.description}")


def _record_failure(
    context: dg.AssetExecutionContext, installation: Installation, window: str, error: Exception, *, alone: bool
) -> Exception:
    """Note a window's failure where it belongs; an error that is no one's is shown with its place in the code."""
    reason = failure_reason(error)
    known = reason is not None
    reason = reason or describe_error(error)
    mark_failed(context, installation, window, error, reason, keep_dataset=not isinstance(error, CheckFailed))
    if not known and alone:
        raise error
    if not alone:
        context.log.error(f"{window} failed: {reason}", exc_info=None if known else error)
    return error


def _windows_left_out(windows: Sequence[str], failed: str) -> dict[str, Exception]:
    reason = f"left out: {failed} before it failed, and each window continues from the one before"
    return {window: PermanentError(reason) for window in windows}


def _together(instance: dg.DagsterInstance) -> AbstractContextManager[None]:
    """One transaction for several events, where the instance's storage is ours; another writes them one by one."""
    together = getattr(instance.event_log_storage, "together", nullcontext)
    return together()


class _own_events(AbstractContextManager[None]):  # noqa: N801 - used as a function
    """Keep Dagster from recording the windows once more when the outputs are handed over.

    Dagster records every partition of a run when its step's output comes, after the last window. A run whose tags say
    that its events are written by someone else is spared that. The tag is set on this process's copy of the run, for
    the moment in which the outputs are handed over.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._tags: Any = context.run.tags

    def __enter__(self) -> None:
        self._tags[EXTERNALLY_MANAGED_ASSETS_TAG] = "true"

    def __exit__(self, *_: object) -> None:
        self._tags.pop(EXTERNALLY_MANAGED_ASSETS_TAG, None)


class _Clock:
    """Says in the run's log how far a long run is and how long it will go on."""

    def __init__(self, context: dg.AssetExecutionContext, total: int) -> None:
        self._log, self._total = context.log, total
        self._first = self._reported = time.monotonic()

    def tick(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if done == 1:
            self._first = now
        if now - self._reported < SAY_EVERY_SECONDS or done == self._total:
            return
        self._reported = now
        left = describe_time_left(done, self._total, now - self._first)
        self._log.info(", ".join(filter(None, [f"{done} of {self._total} windows, {failed} failed", left])))
