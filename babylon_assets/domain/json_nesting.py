"""JSON that is nested deeply: how deep a value may be that is kept, and a text without what is deeper.

Decoders, encoders and templates call themselves for each level and end at Python's limit, which depends on who called
them: a value that can be read here cannot be written there. So values are bounded well below that limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from babylon_assets.domain.cut_characters import replace_halves

#: Levels of a value that is kept: of contents, tools and arguments of tool calls.
MOST_LEVELS = 64
#: Levels of a text that is read. What is cut there is still too deep to be kept, so nothing is kept in part.
CUT_LEVELS = 200
NESTED_TOO_DEEPLY = "nested too deeply"
#: What counts the values that were cut out of a text.
CUT_VALUES = "values nested too deeply"
_T = TypeVar("_T")
#: A string, ended or not, or a bracket.
_PARTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


class NestedTooDeeplyError(msgspec.DecodeError):
    """A JSON text whose value is nested too deeply."""


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects in a value of JSON have more than `MOST_LEVELS` levels."""
    level = [value]
    for _ in range(MOST_LEVELS):
        containers = [inner for inner in level if isinstance(inner, dict | list | tuple)]
        if not containers:
            return False
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return any(isinstance(inner, dict | list | tuple) for inner in level)


def decode_shallow(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        msgspec.DecodeError: it is no JSON, or nested too deeply to be kept.
    """
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise NestedTooDeeplyError(NESTED_TOO_DEEPLY) from None
    if is_too_deep(value):
        raise NestedTooDeeplyError(NESTED_TOO_DEEPLY)
    return value


def decode_cut(decode: Callable[[bytes], _T], text: bytes) -> _T:
    """What a decoder makes of a text, without the values that are too deep for it and the characters that were cut."""
    try:
        return _decode_mended(decode, text)
    except RecursionError:
        return _decode_mended(decode, cut_nesting(text)[0])


def _decode_mended(decode: Callable[[bytes], _T], text: bytes) -> _T:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole, count = replace_halves(bytes(text))
        if not count:
            raise
        return decode(whole)


def cut_nesting(text: bytes) -> tuple[bytes, int]:
    """JSON with null for each value below `CUT_LEVELS` levels, and how many there were."""
    kept: list[bytes] = []
    depth = count = begin = 0
    for part in _PARTS.finditer(text):
        mark = part[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == CUT_LEVELS + 1:
                kept.append(text[begin : part.start()])
        elif mark in (b"]", b"}"):
            if depth == CUT_LEVELS + 1:
                kept.append(b"null")
                begin, count = part.end(), count + 1
            depth -= 1
    if depth > CUT_LEVELS:  # it ends within, so that nothing can read it
        return b"".join(kept), count + 1
    return b"".join([*kept, text[begin:]]), count
