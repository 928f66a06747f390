"""Windows are UTC hours, and nothing else is taken for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import HOURLY, LENGTHS, Window, WindowGrid

moments = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.timezones())


@given(moments)
def test_a_moment_lies_within_its_window(moment: datetime) -> None:
    start, end = HOURLY.bounds(HOURLY.of(moment).id)
    assert start <= moment < end
    assert start.tzinfo is UTC
    assert end - start == timedelta(hours=1)


@given(moments)
def test_neighbours_undo_each_other_and_sort_as_text(moment: datetime) -> None:
    window = HOURLY.of(moment).id
    assert HOURLY.previous(HOURLY.next(window)) == window
    assert HOURLY.previous(window) < window < HOURLY.next(window)


def test_the_zone_of_a_moment_does_not_matter() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    assert HOURLY.of(datetime(2026, 11, 5, 0, 15, tzinfo=india)).id == "2026-11-04T18:00"


def test_a_moment_without_a_zone_has_no_window() -> None:
    with pytest.raises(ValueError, match="aware"):
        HOURLY.of(datetime(2026, 11, 5))


def test_the_start_of_an_hour_belongs_to_it_and_not_to_the_one_before() -> None:
    assert HOURLY.of(datetime(2026, 11, 5, 14, tzinfo=UTC)).id == "2026-11-05T14:00"
    assert HOURLY.of(datetime(2026, 11, 5, 13, 59, 59, 999999, tzinfo=UTC)).id == "2026-11-05T13:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-05",
        "2026-11-05T14:30",
        "2026-11-05T24:00",
        "2026-11-05T14:00Z",
        "2026-11-05T4:00",
        " 2026-11-05T14:00",
        "2026-11-05T14:00+00:00",
        "2026-02-30T14:00",
        "2026-11-05 14:00",
        "٢٠٢٦-11-05T14:00",
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(PermanentError, match=r"is not a window; .*2026-11-05T14:00"):
        HOURLY.parse(text)
    assert not HOURLY.is_window(text)
    assert HOURLY.is_window("2026-11-05T14:00")


def test_closed_windows_end_with_the_hour_before_the_running_one() -> None:
    now = datetime(2026, 3, 1, 1, 0, 0, tzinfo=UTC)
    assert HOURLY.closed(now, 3) == ["2026-02-28T22:00", "2026-02-28T23:00", "2026-03-01T00:00"]
    assert HOURLY.closed(now, 0) == []


@given(moments, st.sampled_from(LENGTHS))
def test_windows_of_any_length_cover_time_without_a_gap(moment: datetime, minutes: int) -> None:
    grid = WindowGrid.of_minutes(minutes)
    window = grid.of(moment)
    assert window.contains(moment) and not window.contains(window.end)
    assert window.end - window.start == grid.length
    assert grid.parse(window.id) == window == window.next().previous()
    assert window < window.next() and window.id < window.next().id
    assert grid.of(window.end) == window.next() == Window.of(window.end, grid.length)
    assert len({window, window.next().previous()}) == 1


def test_what_is_between_begins_at_midnight_and_ends_with_the_last() -> None:
    grid = WindowGrid.of_minutes(480)
    assert grid.between("2026-11-05T16:00", "2026-11-06T08:00") == [
        "2026-11-05T16:00",
        "2026-11-06T00:00",
        "2026-11-06T08:00",
    ]
    assert grid.count("2026-11-06T08:00", "2026-11-05T16:00") < 1


@pytest.mark.parametrize(("minutes", "near"), [(15, "2026-11-05T14:15"), (1440, "2026-11-05T00:00")])
def test_a_start_between_two_windows_is_refused_with_the_nearest_before(minutes: int, near: str) -> None:
    with pytest.raises(PermanentError, match=f"such as {near}"):
        WindowGrid.of_minutes(minutes).parse("2026-11-05T14:20")
