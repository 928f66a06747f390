"""How windows run on Dagster: one or a range in a run, each recorded when it is done, resumed, retried, written down.

This is the one place that knows Dagster's internals (`dagster._core`); the rest of orchestration uses what is exported
here and Dagster's public names. `tests/orchestration/runtime/test_dagster_contract.py` drives the pinned Dagster and
says which of its behaviours this rests on. What a window's work is lives with the assets.
"""

from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob

from babylon_assets.orchestration.runtime.declaration import windowed_assets
from babylon_assets.orchestration.runtime.event_log import remove_old_events
from babylon_assets.orchestration.runtime.instance import dagster_home, fail_orphaned_runs, open_instance
from babylon_assets.orchestration.runtime.line import LINE, Line, LineRun
from babylon_assets.orchestration.runtime.placed_runs import placing_executor
from babylon_assets.orchestration.runtime.ranges import Stage, WindowResult
from babylon_assets.orchestration.runtime.tags import LINE_TAG, UNFINISHED, range_tags, window_range

__all__ = [
    "LINE",
    "LINE_TAG",
    "UNFINISHED",
    "AssetJob",
    "Line",
    "LineRun",
    "Stage",
    "WindowResult",
    "dagster_home",
    "fail_orphaned_runs",
    "open_instance",
    "placing_executor",
    "range_tags",
    "remove_old_events",
    "window_range",
    "windowed_assets",
]
