"""Windows: spans of time of one length, in UTC, and their ids. The clock is not read here: callers pass the time.

Windows are cut from midnight on. A window's id is its start, `YYYY-MM-DDTHH:MM`, 16 characters without a zone suffix:
ids sort as their windows do. The id is the partition key and what our tables hold. It does not say the length, so
whoever computes with ids is given the `WindowGrid` of the installation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from babylon_assets.domain.errors import NoWindow

ID_FORMAT = "%Y-%m-%dT%H:%M"
HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}", re.ASCII)
#: Lengths in minutes: parts of an hour, and whole hours that divide a day. A schedule can say no others.
LENGTHS = (5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """One window.

    Attributes:
        start: its first instant, aware, in UTC.
        length: how long it is.
    """

    start: datetime
    length: timedelta

    @classmethod
    def parse(cls, text: str, length: timedelta) -> Window:
        """The window of this length that has this id.

        Raises:
            NoWindow: when the text is not the id of one.
        """
        start = _start(text)
        if start is None or (start - _EPOCH) % length:
            raise NoWindow(f"{text!r} is not a window; {_advice(start, length)}")
        return cls(start, length)

    @classmethod
    def of(cls, moment: datetime, length: timedelta) -> Window:
        """The window of this length that an instant falls into.

        Raises:
            ValueError: when `moment` has no time zone, and hence no place on the clock.
        """
        if moment.tzinfo is None:
            raise ValueError("the window of a moment needs an aware datetime")
        moment = moment.astimezone(UTC)
        return cls(moment - (moment - _EPOCH) % length, length)

    @property
    def id(self) -> str:
        return self.start.strftime(ID_FORMAT)

    @property
    def end(self) -> datetime:
        """The first instant after it."""
        return self.start + self.length

    def previous(self) -> Window:
        return Window(self.start - self.length, self.length)

    def next(self) -> Window:
        return Window(self.end, self.length)

    def contains(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """How time is cut into windows: all windows of one length, and the arithmetic on their ids."""

    length: timedelta

    @classmethod
    def of_minutes(cls, minutes: int) -> WindowGrid:
        return cls(timedelta(minutes=minutes))

    @property
    def minutes(self) -> int:
        return self.length // _MINUTE

    @property
    def seconds(self) -> float:
        return self.length.total_seconds()

    def parse(self, window: str) -> Window:
        """The window that has this id.

        Raises:
            NoWindow: when the text is not the id of one; it says what to write.
        """
        return Window.parse(window, self.length)

    def is_window(self, text: str) -> bool:
        """Whether a text is the id of a window."""
        start = _start(text)
        return start is not None and not (start - _EPOCH) % self.length

    def of(self, moment: datetime) -> Window:
        """The window that an instant falls into; the instant must be aware."""
        return Window.of(moment, self.length)

    def bounds(self, window: str) -> tuple[datetime, datetime]:
        """Start (inclusive) and end (exclusive) of a window, both aware, in UTC."""
        parsed = self.parse(window)
        return parsed.start, parsed.end

    def previous(self, window: str) -> str:
        """The id of the window before."""
        return self.parse(window).previous().id

    def next(self, window: str) -> str:
        """The id of the window after."""
        return self.parse(window).next().id

    def closed(self, now: datetime, count: int) -> list[str]:
        """The ids of the last `count` windows that are over at `now`, oldest first."""
        running = self.of(now).start
        return [Window(running - self.length * back, self.length).id for back in range(count, 0, -1)]

    def count(self, first: str, last: str) -> int:
        """How many windows there are from the first to the last, both included; below 1 when these are swapped."""
        return (self.parse(last).start - self.parse(first).start) // self.length + 1

    def between(self, first: str, last: str) -> list[str]:
        """The ids from the first to the last, both included."""
        return [window.id for window in self._from(self.parse(first), self.count(first, last))]

    def _from(self, first: Window, count: int) -> Iterator[Window]:
        return (Window(first.start + self.length * number, self.length) for number in range(count))


#: The windows of the Babylon game.
HOURLY = WindowGrid(HOUR)


def short_id(window: str) -> str:
    """A window's id fit for names of files and of policies: `2026-11-05T14`, or `2026-11-05T1415` within an hour."""
    return window.removesuffix(":00").replace(":", "")


def parse_id(window: str) -> datetime:
    """The first instant of a window of any length.

    Raises:
        ValueError: when the text has not the form of an id.
    """
    start = _start(window)
    if start is None:
        raise ValueError(f"{window!r} is no window's id")
    return start


def is_window_id(text: str) -> bool:
    """Whether a text has the form of an id, of windows of any length."""
    return _start(text) is not None


def _start(window: str) -> datetime | None:
    if not _FORM.fullmatch(window):
        return None
    try:
        return datetime.fromisoformat(f"{window}+00:00")
    except ValueError:  # the 30th of February, the year 0
        return None


def _advice(start: datetime | None, length: timedelta) -> str:
    if length == HOUR:
        return "write the UTC hour as YYYY-MM-DDTHH:00, such as 2026-11-05T14:00"
    near = Window.of(start or datetime(2026, 11, 5, 14, 15, tzinfo=UTC), length)
    span = "a day" if length == _DAY else f"{length // _MINUTE} minutes"
    return f"windows are {span} long: write the UTC start as YYYY-MM-DDTHH:MM, such as {near.id}"
