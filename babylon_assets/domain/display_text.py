"""Texts of others, and numbers, as a person is shown them, whatever the medium.

Names, reasons, ids and answers come from agents and from other people's services. Each medium escapes its own markup:
`report.rendering` HTML, `orchestration.metadata` Markdown, `cli.terminal` the terminal and its log.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TypeGuard

# Control characters (a terminal obeys them), marks that override the direction of writing (a name could show itself
# backwards and take its neighbours along), byte order marks, lone surrogates, which UTF-8 has no form for, two that are
# never characters, and what nobody sees (two names could look alike, or hold a text for another model): soft hyphens,
# spaces without width, fillers, tags. Joiners stay, which scripts and emoji need, as do tabs and ends of lines.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    "\xad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u3164\uffa0\U000e0000-\U000e007f]"
)
#: Smaller numbers than this are written with an exponent, as Dagster's UI writes them.
_PLAIN_FROM = 1e-6
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def neutralize(text: str) -> str:
    """The text with a replacement character for each that acts on a terminal, a file or the order of writing."""
    return _UNFIT.sub(_REPLACEMENT, text)


def neutralize_line(text: str) -> str:
    """The same on one line, so that no text adds a line to a log that looks like another entry."""
    return neutralize(" ".join(text.split("\n")))


def shorten(text: str, longest: int) -> str:
    """A text that is too long is cut, and says how long it was."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def shorten_id(identity: str) -> str:
    """The first digits of a hash: enough for a person to tell it from others, and a page has no room for all of it."""
    return identity[:12]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_number(value: object) -> float:
    """The value as a float; NaN where it is none, has no float, or is not finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def round_number(value: float) -> float:
    """The number to four significant digits: what a person reads of it. Whole numbers stay as they are."""
    return value if value.is_integer() else float(f"{value:.4g}")


def format_number(value: float, *, padded: bool = False) -> str:
    """The number to four significant digits, thousands set apart, such as 0.4812 and 12,350; whole numbers have all.

    Numbers below 0.000001 have an exponent.

    Args:
        padded: zeros at its end are kept, so that numbers in a column have the same digits.
    """
    if isinstance(value, int) and not padded:
        return f"{value:,}"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    if _PLAIN_FROM <= abs(value) < 1e-4:
        digits = f"{value:.{3 - math.floor(math.log10(abs(value)))}f}"
        return digits if padded else digits.rstrip("0")
    return f"{value + 0.0:#.4g}" if padded else f"{value + 0.0:.4g}"


def format_plural(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things.

    Args:
        plural: of the noun, where it takes another ending than an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def format_scorers(scorers: Iterable[str]) -> str:
    """Scorers such as `outcome@1` in words, without the reward, which is made of them: `heuristic v1, outcome v1`."""
    named = (name.partition("@") for name in scorers)
    return ", ".join(
        f"{name} {'v' if version[:1].isdigit() else ''}{version}" for name, _, version in named if name != "reward"
    )
