"""Windows: the hours of the game, in UTC, and their ids. The clock is not read here: callers pass the time.

A window's id is the start of its hour, `YYYY-MM-DDTHH:00`, 16 characters without a zone suffix. The same text is the
game's `windowId` and the partition key.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from babylon_assets.domain.errors import PermanentError

WINDOW_FORMAT = "%Y-%m-%dT%H:00"
HOUR = timedelta(hours=1)
_FORM = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:00", re.ASCII)


def parse_window(window: str) -> datetime:
    """The first instant of a window, aware, in UTC.

    Raises:
        PermanentError: when the text is not a window id.
    """
    start = _start(window)
    if start is None:
        raise PermanentError(
            f"{window!r} is not a window; write the UTC hour as YYYY-MM-DDTHH:00, such as 2026-11-05T14:00"
        )
    return start


def is_window(text: str) -> bool:
    """Whether a text is the id of a window."""
    return _start(text) is not None


def _start(window: str) -> datetime | None:
    if not _FORM.fullmatch(window):
        return None
    try:
        return datetime.fromisoformat(f"{window}+00:00")
    except ValueError:  # the 30th of February, the year 0
        return None


def window_of(moment: datetime) -> str:
    """The window that an instant falls into. The instant must be aware; a naive one has no place on the clock.

    Raises:
        ValueError: when `moment` has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("window_of needs an aware datetime")
    return moment.astimezone(UTC).strftime(WINDOW_FORMAT)


def window_bounds(window: str) -> tuple[datetime, datetime]:
    """Start (inclusive) and end (exclusive) of a window, both aware, in UTC."""
    start = parse_window(window)
    return start, start + HOUR


def previous_window(window: str) -> str:
    """The window one hour before."""
    return window_of(parse_window(window) - HOUR)


def next_window(window: str) -> str:
    """The window one hour after."""
    return window_of(parse_window(window) + HOUR)


def closed_windows(now: datetime, count: int) -> list[str]:
    """The last `count` windows that are over at `now`, oldest first."""
    running = parse_window(window_of(now))
    return [window_of(running - HOUR * back) for back in range(count, 0, -1)]
