"""Kinds of settings: what texts are allowed, how a text becomes a value, and how a value is written back.

Which settings there are is declared in `settings` and `setting_groups`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import parse_window

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


def registered(group: str, *values: str) -> Kind:
    """One of some values, or a name that an installed package has registered as an entry point of the group."""

    def parse(text: str) -> str:
        _require(text.lower() in values or text in entry_points(group=group).names)
        return text.lower() if text.lower() in values else text

    return Kind("one of " + ", ".join(values), parse)


def whole(low: int, high: int | None = None) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        _require(low <= value and (high is None or value <= high))
        return value

    return Kind(f"a whole number from {low}" + ("" if high is None else f" to {high}"), parse)


def multiple(of: int) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        _require(value > 0 and value % of == 0)
        return value

    return Kind(f"a multiple of {of}", parse)


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


def address() -> Kind:
    """Where a server listens: an IP address or a host's name."""
    return pattern(r"[A-Za-z0-9.:_-]+", "an IP address or a host's name")


def hashed_keys() -> Kind:
    """Keys by name, written `name:hash`; each hash the hex sha256 of a key."""

    def parse(text: str) -> dict[str, str]:
        pairs = [part.strip().split(":") for part in text.split(",") if part.strip()]
        _require(all(len(pair) == 2 and re.fullmatch(r"[A-Za-z0-9._-]+", pair[0]) for pair in pairs))
        _require(all(re.fullmatch(r"[0-9a-f]{64}", pair[1]) for pair in pairs))
        _require(len({name for name, _ in pairs}) == len(pairs))
        return {name: digest for name, digest in pairs}  # noqa: C416 - pairs are lists

    def render(keys: Mapping[str, str]) -> str:
        return ",".join(f"{name}:{digest}" for name, digest in keys.items())

    return Kind("name:hash pairs separated by commas, as `babylon serve --new-key NAME` prints them", parse, render)


def import_paths() -> Kind:
    """Import paths written `package.module:name`, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        paths = tuple(part.strip() for part in text.split(",") if part.strip())
        _require(all(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", path) for path in paths))
        return paths

    return Kind("package.module:name, separated by commas", parse, ",".join)


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


def declare(variable: str, kind: Kind, default: Any, doc: str, *, secret: bool = False) -> Any:
    """A dataclass field that carries its declaration."""
    text = "" if default is None else kind.render(default)
    facts = {"variable": variable, "kind": kind, "doc": doc, "secret": secret, "default": text}
    return dataclasses.field(default=default, repr=not secret, metadata=facts)


def declare_text(variable: str, kind: Kind, default: str, doc: str) -> Any:
    """As `declare`, for a default that each object makes anew from text: a mapping, a folder below the current one."""
    facts = {"variable": variable, "kind": kind, "doc": doc, "secret": False, "default": default}
    return dataclasses.field(default_factory=lambda: kind.parse(default), hash=False, metadata=facts)
