"""What a run that continues a failed one need not do again.

Such a run comes from "re-execute from failure" in the UI, or from the daemon where a run died. Dagster continues with
the steps that failed, and a step here has all windows of a range: those that are done are known from what the runs
before have materialized.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import dagster as dg
from dagster._core.storage.tags import ASSET_RESUME_RETRY_TAG, RESUME_RETRY_TAG

#: Materializations have pictures in them: so many are held at once.
EVENTS_AT_ONCE = 200
_KINDS = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}


def done_before(context: dg.AssetExecutionContext, assets: Set[dg.AssetKey]) -> frozenset[str]:
    """The windows of which the runs that this one continues made all of these assets; none for a run of its own.

    A window that a blocking check stopped is not done: the check may be that of its last asset. The check's result is
    written together with the asset, so that this holds wherever a run was killed.
    """
    if not assets or not {RESUME_RETRY_TAG, ASSET_RESUME_RETRY_TAG} & context.run.tags.keys():
        return frozenset()
    finished: dict[str, set[dg.AssetKey]] = {}
    stopped: set[str | None] = set()
    for event in _events_before(context.instance, context.run):
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            if event.partition is not None and event.asset_key is not None:
                finished.setdefault(event.partition, set()).add(event.asset_key)
        elif _stops(event.asset_check_evaluation_data):
            stopped.add(event.asset_check_evaluation_data.partition)
    done = frozenset(window for window, keys in finished.items() if keys >= assets and window not in stopped)
    context.log.info(f"{len(done)} windows were done by the run that this one continues")
    return done


def _stops(result: dg.AssetCheckEvaluation) -> bool:
    return result.blocking is True and not result.passed and result.severity is dg.AssetCheckSeverity.ERROR


def _events_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.DagsterEvent]:
    """What the run that this one continues made and checked, and the one that that one continued, and so on."""
    before = run.get_parent_run_id()
    while before is not None:
        yield from _events(instance, before)
        parent = instance.get_run_by_id(before)
        before = parent.get_parent_run_id() if parent is not None else None


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterEvent]:
    cursor, more = None, True
    while more:
        records = instance.get_records_for_run(run_id, cursor=cursor, of_type=_KINDS, limit=EVENTS_AT_ONCE)
        for record in records.records:
            if record.event_log_entry.dagster_event is not None:
                yield record.event_log_entry.dagster_event
        cursor, more = records.cursor, records.has_more
