"""What Dagster keeps of the played windows under other hours: their runs, and what these made and checked.

Each is stored by Dagster's own storage, as a run stores it. What else a run says (its steps, what it plans) the newest
copy alone has, as the product removes it after a month.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.events.log import EventLogEntry
from dagster._serdes import deserialize_value, serialize_value

from benchmarks.many_windows.renaming import Copy

_KEPT = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
_PLANNED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
}


class PlayedRuns:
    """The runs of the played windows with their events, oldest first."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        records = sorted(instance.get_run_records(), key=lambda record: record.create_timestamp)
        self.ids = [record.dagster_run.run_id for record in records]
        self._runs = [(serialize_value(row.dagster_run), row.create_timestamp) for row in records]
        jobs = {row.dagster_run.job_snapshot_id for row in records}
        plans = {row.dagster_run.execution_plan_snapshot_id for row in records}
        self._jobs = [instance.get_job_snapshot(name) for name in jobs if name]
        self._plans = [instance.get_execution_plan_snapshot(name) for name in plans if name]
        self._events = [event for name in self.ids for event in instance.all_logs(name)]

    def copy(self, instance: dg.DagsterInstance, copies: Sequence[Copy]) -> None:
        """Add the runs of these copies to an instance."""
        for job in self._jobs:
            instance.run_storage.add_job_snapshot(job)
        for plan in self._plans:
            instance.run_storage.add_execution_plan_snapshot(plan)
        kept = [serialize_value(event) for event in self._events if event.dagster_event_type in _KEPT]
        for copy in copies:
            for run, created in self._runs:
                moved = deserialize_value(copy.rename(run), dg.DagsterRun)
                instance.run_storage.add_historical_run(moved, created - copy.earlier)
            if copy is copies[-1]:
                self._store_rest(instance, copy)
            instance.event_log_storage.store_event_batch([_move(event, copy) for event in kept])

    def _store_rest(self, instance: dg.DagsterInstance, copy: Copy) -> None:
        """What the runs planned and said."""
        events = [event for event in self._events if event.dagster_event_type not in _KEPT]
        planned = [event for event in events if event.dagster_event_type in _PLANNED]
        instance.event_log_storage.store_event_batch([_move(serialize_value(event), copy) for event in planned])
        for event in events:
            if event.dagster_event_type not in _PLANNED:
                instance.event_log_storage.store_event(_move(serialize_value(event), copy))


def _move(event: str, copy: Copy) -> EventLogEntry:
    values: dict[str, Any] = json.loads(copy.rename(event))
    values["timestamp"] -= copy.earlier.total_seconds()
    return deserialize_value(json.dumps(values), EventLogEntry)
