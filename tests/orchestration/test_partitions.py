"""Partitions are the windows: the same keys, for every length that may be set."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.windows import LENGTHS, WindowGrid
from babylon_assets.orchestration.partitions import build_partitions

START, NOW = "2026-11-05T00:00", datetime(2026, 11, 6, 13, 7, tzinfo=UTC)


@pytest.mark.parametrize("minutes", LENGTHS)
def test_the_keys_are_the_ids_of_the_closed_windows(minutes: int) -> None:
    grid = WindowGrid.of_minutes(minutes)
    partitions = build_partitions(Settings(window_minutes=minutes, window_start=START))
    closed = grid.between(START, grid.closed(NOW, 1)[0])
    assert partitions.get_partition_keys(current_time=NOW) == closed
    first, last = closed[0], closed[-1]
    assert list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))) == closed
    span = partitions.time_window_for_partition_key(last)
    assert (span.start, span.end) == grid.bounds(last)


def test_hours_have_the_definition_that_storages_know() -> None:
    known = dg.HourlyPartitionsDefinition(start_date=START, fmt="%Y-%m-%dT%H:00", timezone="UTC")
    built = build_partitions(Settings(window_start=START))
    assert built == known and type(built) is type(known)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WINDOW_MINUTES": "45"}, "WINDOW_MINUTES is '45'; set it to one of 5, 6, 10, .*, 1440"),
        ({"WINDOW_MINUTES": "15", "WINDOWS_FROM": "2026-10-01T00:20"}, "WINDOWS_FROM: .*such as 2026-10-01T00:15"),
        ({"WINDOW_ID": "2026-10-01T00:15"}, "WINDOW_ID: .*write the UTC hour"),
    ],
)
def test_a_wrong_length_or_start_says_what_is_allowed(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(variables, None)
