"""The code location: one builder that production, tests and the command line all use.

Loading it opens no connection and imports neither torch nor ART.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.environments.registry import environment_of_pages
from babylon_assets.orchestration.assets import build_assets
from babylon_assets.orchestration.checks import build_standing_check
from babylon_assets.orchestration.io_manager import FrameReader
from babylon_assets.orchestration.jobs import build_line_job, build_refresh_job
from babylon_assets.orchestration.metadata import FRAMES
from babylon_assets.orchestration.nightly import build_nightly_jobs
from babylon_assets.orchestration.partitions import build_partitions
from babylon_assets.orchestration.resources import RESOURCE, Installation
from babylon_assets.orchestration.runtime import placing_executor
from babylon_assets.orchestration.schedules import build_look_job, build_schedules
from babylon_assets.orchestration.sensors import build_sensors
from babylon_assets.orchestration.source_tables import build_source_tables


def build_definitions(
    settings: Settings, *, installation: Installation | None = None, **overrides: Any
) -> dg.Definitions:
    """Everything that Dagster serves, for these settings.

    Args:
        installation: settings with an open database, for a caller that has one; opened on first use otherwise.
        overrides: replace arguments of `dagster.Definitions` as a whole, such as `executor` or `sensors`; other `jobs`
            have none of our sensors and schedules, which launch our own.
    """
    windows = build_partitions(settings)
    described = environment_of_pages(settings)
    assets = build_assets(windows, described)
    installation = installation or Installation(settings)
    standing = build_standing_check()
    line, again = build_line_job(assets), build_refresh_job(retrain=settings.automation.late_data == "retrain")
    given: dict[str, Any] = {
        "assets": [*assets, *build_source_tables(described, windows)],
        "asset_checks": [standing],
        "jobs": [line, again, build_look_job(standing), *build_nightly_jobs()],
        "sensors": [] if "jobs" in overrides else build_sensors(installation),
        "schedules": [] if "jobs" in overrides else build_schedules(settings),
        "resources": {RESOURCE: installation, FRAMES: FrameReader(installation)},
        "executor": placing_executor,
    }
    return dg.Definitions(**{**given, **overrides})


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions for the settings of this process's environment."""
    return build_definitions(load_settings())
