"""What runs by the clock: the standing check, every hour.

Old runs, events and ticks are removed by Dagster itself, as the `retention` of dagster.yaml says.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

LOOK = "look_for_failures"
#: Ten minutes after the hour: its window is past its grace by then.
AT = "10 * * * *"


def build_look_job(check: dg.AssetChecksDefinition) -> UnresolvedAssetJobDefinition:
    """Only the standing check."""
    return dg.define_asset_job(
        LOOK,
        selection=dg.AssetSelection.checks(check),
        description="Lists the windows that stay failed and wait for a person, as a check of model_checkpoints.",
    )


def build_schedules(*, running: bool) -> list[dg.ScheduleDefinition]:
    """The schedules, running or stopped."""
    status = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
    return [
        dg.ScheduleDefinition(
            name="hourly_look",
            job_name=LOOK,
            cron_schedule=AT,
            execution_timezone="UTC",
            default_status=status,
            description="Looks every hour for windows that stay failed.",
        )
    ]
