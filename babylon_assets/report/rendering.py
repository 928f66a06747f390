"""Jinja2's templates of the report: autoescape is on, and no text can break the page, its XML or the order of writing.

A value is escaped where it is printed unless it is `Markup` already, which only templates and coordinates are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from babylon_assets.domain import site_links
from babylon_assets.domain.display_text import format_number, format_plural, neutralize, shorten

if TYPE_CHECKING:
    from jinja2 import Environment

MISSING = "\N{EN DASH}"
#: A longer text is cut: the ledger has the whole of it.
LONGEST = 400


def render(template: str, **values: Any) -> str:
    """A template of the folder `templates` with these values in it.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return make_environment(_printable)


def make_environment(printable: Callable[[object], object], *packages: str) -> Environment:
    """Jinja2's environment with the report's templates and filters.

    Args:
        printable: what is printed of a value, before it is escaped.
        packages: whose templates come before the report's.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "babylon_assets.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shapes = (format_when, format_value, format_count, format_money, format_seconds, format_plural, format_px)
    environment.globals |= {**site_links.LINKS, "site": site_links.SITE, "longest": LONGEST}
    environment.filters |= {shape.__name__.removeprefix("format_"): shape for shape in shapes}
    return environment


def _printable(value: object) -> object:
    """What is printed of a value: markup as it is, nothing for None, any other text harmless and of bounded length."""
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else neutralize(shorten(str(value), LONGEST))


def format_when(moment: datetime) -> str:
    """A time to the minute."""
    return moment.strftime("%Y-%m-%d %H:%M")


def format_value(value: float | None) -> str:
    """A number of a table, or a dash."""
    return MISSING if value is None else format_number(value, padded=True)


def format_count(value: int | None) -> str:
    """A count with thousands set apart, or a dash."""
    return MISSING if value is None else f"{value:,}"


def format_money(value: float) -> str:
    """US dollars; small amounts keep the digits that they have."""
    return f"${value:,.2f}" if value >= 0.01 or value == 0 else f"${value:.4f}"


def format_seconds(seconds: float) -> str:
    """A span of time, as a clock shows it from two minutes on."""
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def format_px(place: float) -> str:
    """A place in a drawing, to a tenth of a pixel."""
    return f"{place:.1f}"
