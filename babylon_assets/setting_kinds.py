"""Kinds of settings: what texts are allowed, how a text becomes a value, and how a value is written back.

Which settings there are is declared in `settings`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.core.errors import PermanentError
from babylon_assets.core.windows import parse_window

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's text becomes a value and back; `parse` raises ValueError for what is not allowed."""

    allowed: str
    parse: Callable[[str], Any]
    render: Callable[[Any], str] = str


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def text() -> Kind:
    return Kind("any text", str)


def choice(*values: str, fold: Callable[[str], str] = str.lower) -> Kind:
    def parse(text: str) -> str:
        _require(fold(text) in values)
        return fold(text)

    return Kind("one of " + ", ".join(values), parse)


def whole(low: int, high: int | None = None) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        _require(low <= value and (high is None or value <= high))
        return value

    return Kind(f"a whole number from {low}" + ("" if high is None else f" to {high}"), parse)


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """A finite number between `low` (excluded when `above`) and `high`."""

    def parse(text: str) -> float:
        value = float(text)
        _require(math.isfinite(value) and low <= value <= high and not (above and value == low))
        return value

    return Kind(f"a number {'above' if above else 'from'} {low:g} to {high:g}", parse, repr)


def switch() -> Kind:
    def parse(text: str) -> bool:
        _require(text.lower() in _TRUE | _FALSE)
        return text.lower() in _TRUE

    return Kind("true or false", parse, lambda value: str(value).lower())


def folder() -> Kind:
    return Kind("a folder", lambda text: Path(text).expanduser().absolute())


def pattern(pattern: str, allowed: str) -> Kind:
    def parse(text: str) -> str:
        _require(re.fullmatch(pattern, text) is not None)
        return text

    return Kind(allowed, parse)


def postgres_url() -> Kind:
    return pattern(r"postgres(ql)?(\+\w+)?://\S+", "a URL such as postgresql://user:password@host:5432/database")


def window() -> Kind:
    def parse(text: str) -> str:
        try:
            parse_window(text)
        except PermanentError as error:
            raise ValueError from error
        return text

    return Kind("a UTC hour as YYYY-MM-DDTHH:00", parse)


def weights() -> Kind:
    """Weights by scorer, written `outcome=1.0,heuristic=0.1`; each finite, not all zero."""

    def parse(text: str) -> dict[str, float]:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        _require(all(len(pair) == 2 and pair[0].strip() for pair in pairs))
        weights = {name.strip(): float(weight) for name, weight in pairs}
        _require(len(weights) == len(pairs) and any(weights.values()))
        _require(all(map(math.isfinite, weights.values())))
        return weights

    def render(weights: Mapping[str, float]) -> str:
        return ",".join(f"{name}={weight!r}" for name, weight in weights.items())

    return Kind("scorer=weight pairs separated by commas, not all zero", parse, render)
