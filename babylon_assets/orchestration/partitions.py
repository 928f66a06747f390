"""The partitions: one per window, from WINDOWS_FROM on. A window is there once it is over; its key is its id."""

from __future__ import annotations

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.domain.windows import HOURLY, ID_FORMAT, WindowGrid


def build_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """The partitions of windows of WINDOW_MINUTES. Those of an hour have the definition that storages know."""
    if settings.windows == HOURLY:
        return dg.HourlyPartitionsDefinition(start_date=settings.window_start, fmt="%Y-%m-%dT%H:00", timezone="UTC")
    return dg.TimeWindowPartitionsDefinition(
        start=settings.window_start, fmt=ID_FORMAT, timezone="UTC", cron_schedule=_cron(settings.windows)
    )


def _cron(windows: WindowGrid) -> str:
    """The starts of windows: parts of an hour, or whole hours that divide a day."""
    hours, minutes = divmod(windows.minutes, 60)
    if hours == 0:
        return f"*/{minutes} * * * *"
    return "0 0 * * *" if hours == 24 else f"0 */{hours} * * *"
