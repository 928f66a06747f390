"""What commands print with: one console for results, one for errors, and the shapes of numbers in tables.

Colours show on a terminal only.
"""

from __future__ import annotations

import json
import logging
import re
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from babylon_assets.domain.display_text import format_number, is_number, neutralize, neutralize_line, shorten_id
from babylon_assets.ledger.waiting import current_wait

#: The log that says for whom this process waits.
WAITS = "babylon_assets.ledger.waiting"
#: Columns between two of a table, and those that the last one is left, where it holds more.
GAP, LAST_COLUMN = 2, 24
#: Characters of an id that are shown where there is no room for all of it.
ID_COLUMN = 12
_BLANKS = re.compile(r"[ \t]+(?=\n)")
#: How often whoever waits is told that a command goes on.
TELL_EVERY_SECONDS = 10.0
#: Columns where there is no terminal to ask: tables in files and pipes keep their cells whole.
WIDE = 160


class Terminal(Console):
    """A console on which no text acts: a `str` is no markup, and what a terminal obeys is replaced in it.

    That holds for what is printed and for the cells of tables alike. What is to be seen is a `bold` text. In a file or
    a pipe no line ends with blanks.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)
        self._width = self._height = None  # COLUMNS and LINES are asked when something is shown, not once

    @property
    def size(self) -> ConsoleDimensions:
        """Where there is no terminal to ask, and COLUMNS does not say, WIDE columns."""
        asked = super().size
        if self._width is None and not self.is_terminal and "COLUMNS" not in self._environ:
            return ConsoleDimensions(WIDE, asked.height)
        return asked

    @size.setter
    def size(self, given: tuple[int, int]) -> None:
        self._width, self._height = given

    def print(self, *objects: Any, **options: Any) -> None:
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as shown:
            super().print(*objects, **options)
        super().print(Text(_BLANKS.sub("", shown.get())), soft_wrap=True, end="", highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(neutralize(text), **options)


output = Terminal(stderr=False)
errors = Terminal(stderr=True)

MISSING = "-"


def bold(text: object, style: str = "bold") -> Text:
    """A text that is set off from what is around it."""
    return Text(neutralize(str(text)), style)


class LogFormatter(logging.Formatter):
    """Lines of the log on which no text of others acts; the message of an entry is one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return neutralize_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return neutralize(super().formatException(ei))


class LogHandler(RichHandler):
    """The log on a terminal; for whom this process waits is a sentence without time and level."""

    def render(self, *, record: logging.LogRecord, message_renderable: Any, **others: Any) -> Any:
        if record.name == WAITS:
            return message_renderable
        return super().render(record=record, message_renderable=message_renderable, **others)


def show_log(level: str) -> None:
    """Show the product's own log from this level on, on standard error; other libraries' stay as they are."""
    log = logging.getLogger("babylon_assets")
    log.setLevel(level)
    handler = LogHandler(console=errors, show_path=False)
    handler.setFormatter(LogFormatter("%(message)s"))
    log.handlers = [handler]
    log.propagate = False


def print_json(value: Any) -> None:
    """Plain JSON for scripts, whatever the width of the terminal."""
    output.file.write(json.dumps(value, indent=2, default=str) + "\n")


def number(value: float | None) -> str:
    """A number in a table, to four significant digits; a dash for what is not known. JSON has all of them."""
    return MISSING if value is None else format_number(value, padded=not isinstance(value, int))


def plain(value: object) -> str:
    """Any value in a line, numbers in it as people read them; a dash for what is not known."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain(member)}" for name, member in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or MISSING
    return MISSING if value is None else number(value) if is_number(value) else str(value)


def as_set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a person writes them: their numbers without zeros at the end."""
    return {name: format_number(value) if is_number(value) else value for name, value in settings.items()}


def is_empty(value: object) -> bool:
    """Whether there is nothing to show of a fact; 0 is something."""
    return value is None or (isinstance(value, str | Mapping | list | tuple) and not value)


def print_fact(name: str, value: object, *, indent: int = 0, width: int = 0) -> None:
    """A `name  value` line; what has no room on it goes on below, and no word of it is broken.

    Args:
        width: of the names that stand in a column.
    """
    head = f"{' ' * indent}{name:<{width}}  "
    text = neutralize_line(str(value) if name == "seed" else plain(value))
    longest = max(map(len, text.split()), default=0)
    below = " " * (indent + 4) if longest > output.width - len(head) else " " * len(head)
    room = max(output.width - len(below), longest, 1)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    first = head + lines.pop(0) if len(below) == len(head) else head.rstrip()
    for line in [first, *(below + line for line in lines)]:
        output.print(line, highlight=False, soft_wrap=True)


def count(value: int | None) -> str:
    """A count with thousands set apart; a dash for what is not known."""
    return MISSING if value is None else f"{value:,}"


def short(identity: str | None) -> str:
    """The first digits of a hash, enough for a person to tell it from others."""
    return MISSING if identity is None else shorten_id(identity)


def fitting_table(
    rows: Sequence[Mapping[str, str]],
    *,
    drop: Sequence[str] = (),
    right: Collection[str] = (),
    ids: Collection[str] = (),
) -> Table:
    """Rows of the same columns as a table that is as wide as the terminal, at most.

    Where there is no room, columns of `ids` lose their middle and columns of `drop` are left out, the first of them
    first; a line below the table says which. What is still too long is folded within its column and never cut, the
    widest column first.

    Args:
        right: columns that are flush right, such as numbers.
        ids: columns whose beginning and end are enough to tell a row from others.
    """
    names = list(rows[0] if rows else ())
    whole = {name: max(map(len, [name, *(line for row in rows for line in row[name].splitlines())])) for name in names}
    needed = whole | {name: min(whole[name], max(len(name), LAST_COLUMN)) for name in names[-1:]}
    needed |= {name: min(whole[name], max(len(name), ID_COLUMN)) for name in ids if name in whole}
    dropped: list[str] = []
    for name in (name for name in drop if name in whole):
        if sum(needed[kept] + GAP for kept in names) - GAP > output.width:
            names.remove(name)
            dropped.append(name)
    widths = _fit({name: needed[name] for name in names}, whole, ids)
    table = Table(box=None, header_style="bold", pad_edge=False, caption_justify="left")
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", width=widths[name])
    for row in rows:
        table.add_row(*(_cut(row[name], widths[name]) if name in ids else row[name] for name in names))
    if dropped:
        table.caption = f"not shown at this width: {', '.join(dropped)}; --json has all"
    return table


def _cut(identity: str, width: int) -> str:
    """An id without its middle, if it is too long; what tells it from others is mostly at its end."""
    begins = max(0, width - 1) // 3
    return identity if len(identity) <= width else f"{identity[:begins]}…{identity[begins + 1 - width :]}"


def _fit(needed: Mapping[str, int], whole: Mapping[str, int], ids: Collection[str]) -> dict[str, int]:
    """The width of each column, all of them on the terminal: the widest give way, the last takes what is left, then
    those of ids.
    """
    widths = dict(needed)
    room = output.width - GAP * (len(widths) - 1)
    while sum(widths.values()) > max(room, len(widths)):
        widths[max(widths, key=lambda name: widths[name])] -= 1
    for name in [*list(widths)[-1:], *(name for name in widths if name in ids)]:
        widths[name] = min(whole[name], widths[name] + max(0, room - sum(widths.values())))
    return widths


def tell_step(text: str) -> None:
    """Say on standard error what begins now, so that nobody waits for an unknown."""
    errors.print(text, style="dim", highlight=False, soft_wrap=True)


@contextmanager
def waiting(text: str, *, beside_bar: bool = False) -> Iterator[Callable[..., None]]:
    """Say on standard error what begins now and, while it goes on, for how long it has, or whom it waits for.

    The block is given what changes what is said from then on, and counted; a share that is done may come with it. It
    is said where standard error was when it began: a training takes it away from libraries that print.

    Args:
        beside_bar: whether the block draws a progress bar, which moves by itself on a terminal.
    """
    if beside_bar and errors.is_terminal:
        tell_step(text)
        yield lambda *_: None
        return
    ended, stream = threading.Event(), errors.file
    now = [(text, "", time.monotonic())]

    def say(what: str, share: float | None = None) -> None:
        same = what == now[0][0]
        now[0] = what, "" if share is None else f"{share:.0%}, ", now[0][2] if same else time.monotonic()

    def tell() -> None:
        while not ended.wait(TELL_EVERY_SECONDS):
            with errors.capture() as line:
                what, share, since = now[0]
                if wait := current_wait():
                    what, share, since = f"waiting for {wait[0]}", "", wait[1]
                tell_step(f"still {what}: {share}{time.monotonic() - since:.0f} s")
            stream.write(line.get())
            stream.flush()

    tell_step(text)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield say
    finally:
        ended.set()
        teller.join()


def progress(*columns: str | ProgressColumn) -> Progress:
    """A progress bar on standard error with columns after it; a text names fields of the task."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *(TextColumn(column, markup=False) if isinstance(column, str) else column for column in columns),
        TimeElapsedColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )


def share_callback(bar: Progress, say: Callable[..., None]) -> Callable[[str, float], None]:
    """A callback (what, share done from 0 to 1) that shows each thing it hears of as a task of `bar`.

    Args:
        say: of the `waiting` beside the bar, which says it where there is no terminal for a bar.
    """
    tasks: dict[str, Any] = {}

    def heard(what: str, share: float) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=share)
        say(what, share)

    return heard


def count_callback(bar: Progress) -> Callable[[str, int, int], None]:
    """A callback (who, how many answered, of how many) that shows each policy that is asked as a task of `bar`.

    Where there is no terminal for a bar, each call is a line.
    """
    tasks: dict[str, Any] = {}

    def heard(policy: str, answered: int, of: int) -> None:
        if policy not in tasks:
            tasks[policy] = bar.add_task(f"asking {policy}", total=of)
        bar.update(tasks[policy], completed=answered, total=of)
        if not errors.is_terminal:
            tell_step(f"asking {policy}: {answered} of {of} prompts")

    return heard
