"""Where a run that Dagster launched is executed: its process writes that onto the run when it begins.

Its code server's socket says less: on a host that does not have that socket, every run of another one looks dead. The
run's own id stands in the note, because a run that repeats another takes over all of its tags.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG
from dagster._core.executor.in_process import InProcessExecutor

from babylon_assets.orchestration.runtime.instance import this_process
from babylon_assets.orchestration.runtime.ownership import PLACE_TAG, this_kernel


class _PlacedRun(InProcessExecutor):
    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        run_id = plan_context.dagster_run.run_id
        place = f"{run_id} {this_kernel()} {this_process()}"
        plan_context.instance.add_run_tags(run_id, {PLACE_TAG: place})
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=IN_PROC_CONFIG)
def placing_executor(context: dg.InitExecutorContext) -> InProcessExecutor:
    """Dagster's in-process executor, with the same configuration, that first notes where it is."""
    plain: Any = dg.in_process_executor.executor_creation_fn(context)  # type: ignore[misc]
    return _PlacedRun(plain.retries, plain.step_dependency_config, plain.marker_to_close)
