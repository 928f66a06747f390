"""How large, how long and how deep what a file says may be: beyond that a row is refused, and a file is not read on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, BinaryIO

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.trajectories import Message, StepFacts

#: Characters of an id, a name or a role.
NAME = 256
#: Characters of a conversation with its answer.
TEXT = 4_000_000
#: Messages of a conversation, token ids of an answer or a prompt, components of a reward, details of a step.
MESSAGES, TOKENS, COMPONENTS, DETAILS = 1_000, 262_144, 200, 200
#: Trajectories of a line, which is a group of alternatives; what a refusal is counted as beside `EXPANDED`, in bytes.
GROUP, REFUSAL = 10_000, 1024
#: Bytes of a line, and of all that a file expands to.
LINE, EXPANDED = 64 * 2**20, 2 * 2**30
ROWS = 2_000_000
#: Epoch milliseconds beyond the year 9999 are no time.
TIME = 253_402_300_799_999
_WHOLE = 2**63 - 1
_DEPTH = 16


class OutOfBoundsError(ValueError):
    """A value that is too long, too large or too deep, named."""


def require_name(value: str, what: str) -> str:
    """The value, a name that is short enough.

    Raises:
        OutOfBoundsError: so of all functions here.
    """
    _require(len(value) <= NAME, f"{what} of more than {NAME} characters")
    return value


def require_conversation(messages: Sequence[Message], tools: str | None) -> None:
    """A conversation with its answer, and the tools that were offered, that are not too long."""
    _require(len(messages) <= MESSAGES, f"a conversation of more than {MESSAGES:,} messages")
    for message in messages:
        require_name(message.role, "a role")
    length = characters_of(messages) + len(tools or "")
    _require(length <= TEXT, f"a conversation of more than {TEXT:,} characters")


def characters_of(messages: Iterable[Message]) -> int:
    """Characters of messages with all that comes with their texts."""
    return sum(
        len(text or "")
        for message in messages
        for text in (
            *(message.content, message.parts, message.reasoning, message.tool_call_id, message.name),
            *(text for call in message.tool_calls for text in (call.id, call.name, call.arguments)),
        )
    )


def require_length(values: Sequence[Any] | Mapping[str, Any] | None, most: int, what: str) -> None:
    """A list or a mapping that is not too long."""
    _require(values is None or len(values) <= most, f"more than {most:,} {what}")


def require_facts(facts: StepFacts) -> None:
    """What the environment reported of a step, within what can be stored of it."""
    for milliseconds in (facts.timestamp_ms, facts.moment_ms):
        _require(0 <= milliseconds <= TIME, "a time that is none")
    _require(0 <= facts.step <= 2**31 - 1, "a step that is none")
    require_name(facts.action_type, "an action")
    _require(len(facts.error or "") <= TEXT, f"an error of more than {TEXT:,} characters")
    require_length(facts.detail, DETAILS, "details of a step")
    _require_plain(facts.detail, _DEPTH)


def lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long, which is skipped.

    Raises:
        PermanentError: there are too many.
    """
    number = 0
    while line := file.readline(LINE + 1):
        number += 1
        if number > ROWS:
            raise PermanentError(f"the file has more than {ROWS:,} lines; split it")
        too_long = len(line) > LINE
        while len(line) > LINE and not line.endswith(b"\n"):
            line = file.readline(LINE + 1)
        yield None if too_long else line


def size_of(value: Any) -> int:
    """About how many bytes a value from a file takes: of texts and of lists of numbers, which are what grows."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values())) + 64 * len(value)
    if isinstance(value, list | tuple):
        plain = not value or isinstance(value[0], int | float)
        return 32 * len(value) if plain else sum(map(size_of, value)) + 64 * len(value)
    return 32


def _require_plain(value: Any, depth: int) -> None:
    _require(depth > 0, "details that are nested too deeply")
    if isinstance(value, str):
        _require(len(value) <= TEXT, f"a detail of more than {TEXT:,} characters")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        _require(abs(value) <= _WHOLE, "a detail that is too large a number")
    elif isinstance(value, float):
        _require(isfinite(value), "a detail that is no number")
    elif isinstance(value, Mapping):
        require_length(value, DETAILS, "details of a step")
        for name, inner in value.items():
            require_name(str(name), "a detail's name")
            _require_plain(inner, depth - 1)
    elif isinstance(value, list | tuple):
        require_length(value, TOKENS, "values of a detail")
        for inner in value:
            _require_plain(inner, depth - 1)
    else:
        raise OutOfBoundsError("a detail that is no value of JSON")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise OutOfBoundsError(what)
