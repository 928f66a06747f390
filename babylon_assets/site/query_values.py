"""Values of a page's address and form: texts, numbers, windows, choices, each refused with a sentence if it is none."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from babylon_assets.domain.errors import NoWindow
from babylon_assets.domain.windows import WindowGrid

#: A longer value of an address is no name of anything.
LONGEST_VALUE = 2000


class WrongValueError(ValueError):
    """A value of an address or a form that cannot be; the text says which, and what to do."""


class TooLongError(WrongValueError):
    """A form that is longer than what is read of one."""


def text_of(values: Mapping[str, str], name: str) -> str:
    """The text without space around it; empty where it is not given."""
    text = values.get(name, "").strip()
    if len(text) > LONGEST_VALUE:
        raise WrongValueError(f"{name} has {len(text):,} characters; at most {LONGEST_VALUE:,} are allowed")
    return text.replace("\x00", "")


def optional(values: Mapping[str, str], name: str) -> str | None:
    """The text, or None where it is empty."""
    return text_of(values, name) or None


def number_of(values: Mapping[str, str], name: str) -> float | None:
    """The number, or None where it is not given."""
    text = text_of(values, name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise WrongValueError(f"{name} is {text[:40]!r}; write a number such as 0.5")
    return number


def count_of(values: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`."""
    text = text_of(values, name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most):
        raise WrongValueError(f"{name} is {text[:40]!r}; write a whole number up to {most:,}")
    return int(text)


def window_of(values: Mapping[str, str], grid: WindowGrid) -> str | None:
    """The id of a window, or None where it is not given; the refusal says which window is meant."""
    window = optional(values, "window")
    try:
        return window and grid.parse(window).id
    except NoWindow as error:
        raise WrongValueError(str(error)) from None


def choice_of(values: Mapping[str, str], name: str, allowed: Collection[str]) -> str | None:
    """One of the allowed words, or None where it is not given."""
    text = text_of(values, name)
    if text and text not in allowed:
        raise WrongValueError(f"{name} is {text[:40]!r}; choose among {', '.join(allowed)}")
    return text or None
