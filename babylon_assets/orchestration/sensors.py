"""What keeps the loop going in the daemon: closed windows, changed ones, failures. Each tick says what it did and why.

Sensors only launch runs, note thin windows and tell; which window is next is decided in `window_queue`. They run by
themselves where AUTOMATION is on, its default, as `babylon up` is meant to be left alone; a daemon is what ticks them,
so that commands and tests are not disturbed.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from babylon_assets.domain.errors import BabylonError
from babylon_assets.orchestration import training_requests, webhook, window_queue
from babylon_assets.orchestration.jobs import REFRESH
from babylon_assets.orchestration.metadata import harmless_text
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import (
    LINE,
    LINE_TAG,
    UNFINISHED,
    fail_orphaned_runs,
    range_tags,
    window_range,
)
from babylon_assets.orchestration.source_tables import observations
from babylon_assets.orchestration.window_queue import Attempts, ChangedWindows, NextWindows

#: On the runs that a sensor launches: the first window and the fingerprint of its rows.
TRIED_TAG = "babylon/tried"
#: The same on runs for windows that have changed.
REFRESHED_TAG = "babylon/refreshed"
CLOSED_SECONDS, CHANGED_SECONDS = 10, 60
#: Windows whose fingerprints one tick compares, 8 ms each; a year is gone through in a day and a half.
COMPARED = 40
SHOWN = 16


def build_sensors(installation: Installation) -> list[dg.SensorDefinition]:
    """The sensors, running or stopped as the settings say."""
    running = installation.settings.automation.enabled
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name="closed_windows",
        job_name=LINE,
        minimum_interval_seconds=CLOSED_SECONDS,
        default_status=status,
        description="Runs the whole line for every window that is over and past its grace, oldest first, one run at a "
        "time; after an outage up to a day of windows in one run.",
    )
    def closed_windows(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        freed = fail_orphaned_runs(context.instance)
        if freed:  # the daemon starts most of them again within seconds: a run of ours would only stand beside one
            return dg.SkipReason(f"failed the runs {', '.join(freed)}, whose processes were gone")
        if busy := running_line(context.instance):
            return dg.SkipReason(f"the line is running: {busy}")
        now = datetime.now(UTC)
        plan = window_queue.next_windows(installation, now, context.cursor, lambda *of: attempts(context.instance, *of))
        seen = observations(installation, plan.windows, now)
        window_queue.note_thin(installation, plan.thin)
        return sensor_result(plan, seen)

    @dg.sensor(
        name="changed_windows",
        job_name=REFRESH,
        minimum_interval_seconds=CHANGED_SECONDS,
        default_status=status,
        description="Scores and freezes a window again whose rows or scores are other ones now: one run at a time, "
        "the oldest window first. LATE_DATA says whether what is late joins the next window, or the window is trained "
        "again beside the chain.",
    )
    def changed_windows(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if busy := running_line(context.instance):
            return dg.SkipReason(f"the line is running: {busy}")
        try:
            plan = window_queue.changed_windows(
                installation, context.cursor or None, COMPARED, lambda *of: was_refreshed(context.instance, *of)
            )
            seen = observations(installation, plan.windows, datetime.now(UTC))
        except BabylonError as error:
            return dg.SkipReason(harmless_text(str(error)))
        return refresh_result(plan, seen, context.cursor or "now")

    request_sensor = build_request_sensor(installation)
    return [closed_windows, changed_windows, request_sensor, build_failure_sensor(installation, status)]


def build_request_sensor(installation: Installation) -> dg.SensorDefinition:
    """Runs what the environment asks for, where TRAIN_REQUESTS is on, whatever AUTOMATION is."""
    on = installation.settings.automation.train_requests

    @dg.sensor(
        name="requested_windows",
        job_name=LINE,
        minimum_interval_seconds=CLOSED_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description="Claims what the environment asks to be trained, runs those windows and writes there what came of "
        "them; a request whose run died is taken up again, three times at most. Off unless TRAIN_REQUESTS is true.",
    )
    def requested_windows(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not on:
            return dg.SkipReason("TRAIN_REQUESTS is false: what the environment asks to be trained is left alone")
        now = datetime.now(UTC)
        try:
            again = training_requests.settle(installation, context.instance, now)
            if busy := running_line(context.instance):
                return dg.SkipReason(f"the line is running: {busy}")
            launch = training_requests.next_launch(installation, context.instance, again, now)
        except BabylonError as error:
            return dg.SkipReason(harmless_text(str(error)))
        if launch is None:
            return dg.SkipReason("the environment asks for nothing")
        tags = {training_requests.REQUEST_TAG: launch.request.id}
        key = f"request:{launch.request.id}:{launch.attempt}:{now.timestamp():.0f}"
        return dg.RunRequest(run_key=key, partition_key=launch.window, tags=tags)

    return requested_windows


def build_failure_sensor(installation: Installation, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Tells the webhook of every failed run of ours; without one it only says so in its own log."""

    @dg.run_failure_sensor(
        name="failed_runs",
        default_status=status,
        description="Posts a failed run, with its windows and the reason, to FAILURE_WEBHOOK.",
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        url = installation.settings.automation.failure_webhook
        if url is None:
            context.log.info("FAILURE_WEBHOOK is not set: nobody is told")
            return
        webhook.post(url, webhook.failure_of(context.dagster_run, context.failure_event.message))

    return failed_runs


def sensor_result(plan: NextWindows, seen: Sequence[dg.AssetObservation] = ()) -> dg.SensorResult:
    """A decision in Dagster's terms: the run, the windows that are thin without one, and why nothing is run.

    Args:
        seen: what the game's tables have of the windows that are run.
    """
    thin = [
        dg.AssetMaterialization(
            "model_checkpoints", partition=window, metadata={"status": "thin", "reason": reason, "window": window}
        )
        for window, reason in plan.thin.items()
    ]
    run = [line_run(plan)] if plan.windows else []
    return dg.SensorResult(
        run, cursor=plan.cursor, asset_events=[*thin, *seen], skip_reason=None if run else plan.notes
    )


def line_run(plan: NextWindows) -> dg.RunRequest:
    """One run of the whole line, for one window or for a range of them.

    A run key is launched once, whatever became of the run; window, fingerprint and attempt are in it, so that new data
    gives a new run and the same data never two, but for a bounded number of attempts.
    """
    first, last = plan.windows[0], plan.windows[-1]
    tags = {TRIED_TAG: tried(first, plan.fingerprint)}
    if len(plan.windows) > 1:
        tags |= range_tags(first, last)
    return dg.RunRequest(
        run_key=f"{tags[TRIED_TAG]}:{plan.attempt}",
        partition_key=first if len(plan.windows) == 1 else None,
        tags=tags,
    )


def refresh_result(plan: ChangedWindows, seen: Sequence[dg.AssetObservation], before: str) -> dg.SensorResult:
    """One run for the windows that have changed, or why there is none."""
    same = f"; {', '.join(plan.unchanged)}: other source, same rows and scores" if plan.unchanged else ""
    return dg.SensorResult(
        [refresh(plan)] if plan.windows else [],
        cursor=plan.cursor or "",
        asset_events=seen,
        skip_reason=None if plan.windows else f"no change in {COMPARED} windows before {before}{same}",
    )


def refresh(plan: ChangedWindows) -> dg.RunRequest:
    """One run of the data assets, and where the settings say so of training, for windows that have changed."""
    first, last = plan.windows[0], plan.windows[-1]
    tags = {REFRESHED_TAG: tried(first, plan.fingerprint)}
    if first != last:
        tags |= range_tags(first, last)
    return dg.RunRequest(
        run_key=f"changed:{tags[REFRESHED_TAG]}", partition_key=first if first == last else None, tags=tags
    )


def was_refreshed(instance: dg.DagsterInstance, window: str, fingerprint: str) -> bool:
    """Whether a run was launched for a changed window with this fingerprint, which it would have noted had it ended."""
    return bool(instance.get_runs(dg.RunsFilter(tags={REFRESHED_TAG: tried(window, fingerprint)}), limit=1))


def tried(window: str, fingerprint: str) -> str:
    return f"{window}:{fingerprint[:SHOWN]}"


def attempts(instance: dg.DagsterInstance, window: str, fingerprint: str) -> Attempts:
    """The runs that were launched for a window on these rows."""
    filters = dg.RunsFilter(tags={TRIED_TAG: tried(window, fingerprint)})
    records = instance.get_run_records(filters=filters, limit=window_queue.MOST_ATTEMPTS)
    ends = [record.end_time for record in records if record.end_time is not None]
    return Attempts(len(records), datetime.fromtimestamp(max(ends), UTC) if ends else None)


def running_line(instance: dg.DagsterInstance) -> str | None:
    """A run of the line that is queued or running, in words; its windows come before all others."""
    filters = dg.RunsFilter(tags={LINE_TAG: "window"}, statuses=UNFINISHED)
    runs: Sequence[dg.DagsterRun] = instance.get_runs(filters=filters, limit=1)
    return next((f"{windows_of(run.tags)} in run {run.run_id[:8]}" for run in runs), None)


def windows_of(tags: Mapping[str, str]) -> str:
    """The window of a run, or the first and the last of them, in words, from the run's tags."""
    return " to ".join(dict.fromkeys(window_range(tags) or ["no window"]))
