"""Tables of the report and how numbers and times are written in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from babylon_assets.report.markup import Html, element

MISSING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class ReportColumn:
    """A column: its heading, what of a row stands in it, and the classes of its cells.

    Attributes:
        kind: `number`, `told` for long texts, `wide` for what a phone leaves out.
        head: whether its cells are the headings of their rows.
    """

    heading: str
    of: Callable[[Any], object]
    kind: str | None = None
    head: bool = False


def table(columns: Sequence[ReportColumn], rows: Iterable[object], caption: str) -> Html:
    """A table with a caption, headings and a row for each thing.

    Where it is too wide, it scrolls and the page does not; with long texts in it, a phone shows each row as a card.
    """
    stacked = any("told" in (column.kind or "") for column in columns)
    headings = [element("th", column.heading, scope="col", class_=column.kind) for column in columns]
    body = [element("tr", *(_cell(column, row) for column in columns)) for row in rows]
    markup = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *headings)),
        element("tbody", *body),
        class_="stack" if stacked else None,
    )
    return element("div", markup, class_="scroll", tabindex=0, role="region", aria_label=f"table: {caption}")


def _cell(column: ReportColumn, row: object) -> Html:
    """A cell; where headings are out of sight, the number says what it is."""
    if column.head:
        return element("th", column.of(row), scope="row", class_=column.kind)
    label = column.heading if "number" in (column.kind or "") else None
    return element("td", column.of(row), class_=column.kind, data_label=label)


def when(moment: datetime) -> str:
    """A time to the minute."""
    return moment.strftime("%Y-%m-%d %H:%M")


def ago(span: timedelta) -> str:
    """How long ago, in the largest unit that fits."""
    minutes = max(0, int(span.total_seconds() // 60))
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= size:
            count = minutes // size
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def number(value: float | None) -> str:
    """A number with three digits."""
    return MISSING if value is None else f"{value:.3f}"


def whole(value: int | None) -> str:
    """A count with thousands set apart."""
    return MISSING if value is None else f"{value:,}"


def money(value: float) -> str:
    """US dollars; small amounts keep the digits that they have."""
    return f"${value:,.2f}" if value >= 0.01 or value == 0 else f"${value:.4f}"


def dash(value: str | None) -> str:
    """A text, or a dash."""
    return value or MISSING
