"""What runs by the clock: the standing check, every hour, and what is done once a night.

    10 past every hour   the windows that stay failed are listed
    03:20 UTC            the served policy is evaluated on NIGHTLY_SEEDS markets, once: 192 are 2,304 answers. A night
                         in which nothing else is served plays nothing
    03:40 UTC            weights that nothing needs are removed; only where KEEP_CHECKPOINTS is set
    03:50 UTC            what runs said that ended KEEP_RUN_LOGS_DAYS ago is removed from Dagster's tables: 34 of the 66
                         events of a run of one window. The others are what it made and checked, and stay

A missed night is not made up for: each does all that is to be done. Ticks of sensors and schedules are removed by
Dagster itself, as the `retention` of dagster.yaml says; it has none for runs.
"""

from __future__ import annotations

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.orchestration.nightly import EVALUATE, PRUNE, UPKEEP
from babylon_assets.orchestration.runtime import AssetJob

LOOK = "look_for_failures"
#: Ten minutes after the hour: its window is past its grace by then.
AT = "10 * * * *"


def build_look_job(check: dg.AssetChecksDefinition) -> AssetJob:
    """Only the standing check."""
    return dg.define_asset_job(
        LOOK,
        selection=dg.AssetSelection.checks(check),
        description="Lists the windows that stay failed and wait for a person, as a check of model_checkpoints.",
    )


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, running or stopped as the settings say."""
    on = settings.automation.enabled
    prunes = on and settings.automation.keep_checkpoints is not None
    return [
        _schedule("hourly_look", LOOK, AT, on, "Looks every hour for windows that stay failed."),
        _schedule(
            "nightly_evaluation",
            f"nightly_{EVALUATE}",
            "20 3 * * *",
            on,
            "Evaluates the served policy on NIGHTLY_SEEDS cases of the environment's benchmark, where it has one.",
        ),
        _schedule(
            "nightly_pruning",
            f"nightly_{PRUNE}",
            "40 3 * * *",
            prunes,
            "Removes weights that nothing needs. Off unless KEEP_CHECKPOINTS is set.",
        ),
        _schedule(
            "nightly_upkeep",
            f"nightly_{UPKEEP}",
            "50 3 * * *",
            on,
            "Removes the logs of runs that ended KEEP_RUN_LOGS_DAYS ago; what they made and checked stays.",
        ),
    ]


def _schedule(name: str, job: str, cron: str, running: bool, about: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=name,
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=about,
    )
