"""An answer's text taken apart: its thought, what it says, and the tools that it calls.

Thoughts stand between `<think>` and `</think>`. Tools are called in the form of Qwen and Hermes, `<tool_call>` around
JSON, or in Llama's, JSON alone. What looks like a call and is none, or of no tool that was offered, is text.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from babylon_assets.domain.json_nesting import decode_shallow
from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Piece, Question

_THINK, _THOUGHT_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
#: What Llama may write before a call.
_PYTHON_TAG = "<|python_tag|>"


@dataclass(slots=True)
class Reading:
    """What was read of a text since the last time."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class AnswerParser:
    """Reads one answer as it grows.

    Args:
        names: of the tools that may be called; None where none were offered.
        in_thought: whether the answer begins within a thought, as where the template opens one.
        parses_thoughts: take thoughts out of the content.
    """

    def __init__(self, names: Sequence[str] | None, *, in_thought: bool = False, parses_thoughts: bool = True) -> None:
        self._names = names
        self._waiting = ""  # text that was not read yet, as more of it may change what it is
        self._has_content = self._skips_space = False
        self._state = (
            self._thought if in_thought and parses_thoughts else self._start if parses_thoughts else self._text
        )
        self._ended = False
        self._read = Reading()

    def feed(self, text: str) -> Reading:
        """Take in more text; gives what is certain by now."""
        self._waiting += text
        return self._advance()

    def finish(self) -> Reading:
        """The text is whole; gives the rest."""
        self._ended = True
        return self._advance()

    def _advance(self) -> Reading:
        self._read = Reading()
        while self._state():
            pass
        return self._read

    def _start(self) -> bool:
        text = self._waiting.lstrip()
        if text.startswith(_THINK):
            self._waiting, self._state = text[len(_THINK) :].lstrip("\n"), self._thought
            return True
        if _THINK.startswith(text) and not self._ended:
            return False
        self._state = self._text
        return True

    def _thought(self) -> bool:
        before, mark, after = self._waiting.partition(_THOUGHT_END)
        if mark:
            self._read.reasoning += before.rstrip()
            self._waiting, self._skips_space, self._state = after, True, self._text
            return True
        certain = len(before) if self._ended else _certain(before, _THOUGHT_END)
        self._read.reasoning += before[:certain]
        self._waiting = before[certain:]
        return False

    def _text(self) -> bool:
        if self._skips_space:
            self._waiting = self._waiting.lstrip()
            self._skips_space = not self._waiting
        if self._names is None:
            return self._say(len(self._waiting))
        if not self._has_content and self._waiting.lstrip()[:1] in ("{", "[", "<"):
            begin = self._waiting.lstrip()
            if begin[0] != "<" or begin.startswith(_PYTHON_TAG):
                self._state = self._json
                return True
            if _PYTHON_TAG.startswith(begin) and not self._ended:
                return False
        at = self._waiting.find(_CALL)
        if at >= 0:
            self._say(len(self._waiting[:at].rstrip()))
            self._waiting, self._state = self._waiting.lstrip()[len(_CALL) :], self._call
            return True
        return self._say(len(self._waiting) if self._ended else _certain(self._waiting, _CALL))

    def _say(self, count: int) -> bool:
        """So many characters are content."""
        self._read.content += self._waiting[:count]
        self._has_content = self._has_content or bool(self._waiting[:count].strip())
        self._waiting = self._waiting[count:]
        return False

    def _call(self) -> bool:
        before, mark, after = self._waiting.partition(_CALL_END)
        if not mark and not self._ended:
            return False
        calls = _parse_calls(before, self._names or ())
        if calls:
            self._read.tool_calls += calls
        else:
            self._read.content += _CALL + before + mark
        self._waiting, self._skips_space, self._state = after, bool(calls), self._text
        return bool(after) or (self._ended and bool(mark))

    def _json(self) -> bool:
        if not self._ended:
            return False
        calls = _parse_calls(self._waiting.strip().removeprefix(_PYTHON_TAG), self._names or ())
        self._read.tool_calls += calls
        if not calls:
            self._read.content += self._waiting
        self._waiting = ""
        return False


def _certain(text: str, mark: str) -> int:
    """How many characters of a text cannot be the beginning of a mark, or space before one."""
    for at in range(max(0, len(text) - len(mark) + 1), len(text)):
        if mark.startswith(text[at:]):
            return len(text[:at].rstrip())
    return len(text.rstrip())


def _parse_calls(text: str, names: Sequence[str]) -> tuple[ToolCall, ...]:
    """The calls that a JSON text holds, one or a list, all of offered tools; none where it is anything else."""
    try:
        value = decode_shallow(text.strip().rstrip(";"))
    except (msgspec.DecodeError, UnicodeError):
        return ()
    values = value if isinstance(value, list) else [value]
    calls = [_call(entry, names) for entry in values]
    return tuple(call for call in calls if call is not None) if all(calls) else ()


def _call(value: Any, names: Sequence[str]) -> ToolCall | None:
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(f"call_{secrets.token_hex(12)}", value["name"], text)


def _reader(question: Question, in_thought: bool) -> AnswerParser:
    names = None if question.tools is None else question.tools.names
    return AnswerParser(names, in_thought=in_thought, parses_thoughts=question.thoughts != "raw")


def read_answer(answer: Answer, question: Question, *, in_thought: bool = False) -> Answer:
    """An answer with its thought and its tool calls apart; one that its server took apart has its calls already."""
    reader = _reader(question, in_thought)
    readings = [reader.feed(answer.text), reader.finish()]
    return _put_together(answer, question, readings)


def _put_together(answer: Answer, question: Question, readings: Sequence[Reading]) -> Answer:
    content = "".join(reading.content for reading in readings)
    reasoning = answer.reasoning or "".join(reading.reasoning for reading in readings)
    calls = answer.tool_calls or tuple(call for reading in readings for call in reading.tool_calls)
    finish_reason = "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason
    return replace(
        answer,
        content=None if content == answer.text else content,
        reasoning="" if question.thoughts == "hidden" else reasoning,
        tool_calls=calls,
        finish_reason=finish_reason,
    )


async def read_pieces(
    pieces: AsyncGenerator[Piece], question: Question, *, in_thought: bool = False
) -> AsyncGenerator[Piece]:
    """Pieces of answers with thoughts and tool calls apart; what may yet become either is held back."""
    readers = [_reader(question, in_thought) for _ in question.seeds]
    readings: list[list[Reading]] = [[] for _ in question.seeds]
    try:
        async for piece in pieces:
            own = readings[piece.index]
            own.append(readers[piece.index].feed(piece.text))
            reading, whole = own[-1], piece.whole
            if whole is not None:
                own.append(readers[piece.index].finish())
                reading = _joined(own[-2:])
                whole = _put_together(whole, question, own)
            yield Piece(
                index=piece.index,
                text=reading.content,
                tokens=piece.tokens,
                whole=whole,
                reasoning="" if question.thoughts == "hidden" else piece.reasoning or reading.reasoning,
                tool_calls=piece.tool_calls + reading.tool_calls,
            )
    finally:
        await pieces.aclose()


def _joined(readings: Sequence[Reading]) -> Reading:
    return Reading(
        "".join(reading.content for reading in readings),
        "".join(reading.reasoning for reading in readings),
        tuple(call for reading in readings for call in reading.tool_calls),
    )
