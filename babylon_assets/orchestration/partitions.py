"""The partitions: one per window, from WINDOWS_FROM on. A window is there once it is over; its key is its id."""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.windows import HOURLY, ID_FORMAT, WindowGrid
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import list_windows

#: An older row, which may be a test's, does not give the UI years of empty partitions; WINDOWS_FROM does.
FARTHEST_BACK = timedelta(days=366)


def build_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """The partitions of windows of WINDOW_MINUTES. Those of an hour have the definition that storages know."""
    if settings.windows == HOURLY:
        return dg.HourlyPartitionsDefinition(start_date=settings.window_start, fmt="%Y-%m-%dT%H:00", timezone="UTC")
    return dg.TimeWindowPartitionsDefinition(
        start=settings.window_start, fmt=ID_FORMAT, timezone="UTC", cron_schedule=_cron(settings.windows)
    )


def beginning_with_the_record(settings: Settings, database: Database, now: datetime) -> Settings:
    """The settings with the record's first window as the first partition, unless WINDOWS_FROM says which.

    Dagster plots the last 120 partitions, and picks every missing one: hours before the record would fill both. Without
    a record, partitions begin with the window that is running.
    """
    if not settings.begins_with_the_record:
        return settings
    environment = open_environment(settings)
    with database.connect() as conn, database.source_of(conn) as source:
        known = [row.window_id for row in list_windows(conn)]
        try:
            environment.check(source)
            known += [row.window for row in environment.list_windows(source)]
        except SourceError:
            source.rollback()
    farthest = settings.windows.of(now - FARTHEST_BACK).id
    return settings.replace(window_start=max(farthest, min(known, default=settings.windows.of(now).id)))


def _cron(windows: WindowGrid) -> str:
    """The starts of windows: parts of an hour, or whole hours that divide a day."""
    hours, minutes = divmod(windows.minutes, 60)
    if hours == 0:
        return f"*/{minutes} * * * *"
    return "0 0 * * *" if hours == 24 else f"0 */{hours} * * *"
