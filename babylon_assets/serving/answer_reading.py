"""An answer's text taken apart: its thought, what it says, and the tools that it calls.

Thoughts stand between `<think>` and `</think>`. Tools are called within `<tool_call>`, as Qwen and Hermes do, or by
JSON alone, as Llama does. What looks like a call and is none, or of no tool that was offered, is text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Piece, Question
from babylon_assets.serving.tool_call_texts import CALL, CALL_END, Parameters, find_end, read_calls

_THINK, _THOUGHT_END = "<think>", "</think>"
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
        tools: the schemas of the tools that may be called, by name; None where none were offered.
        in_thought: whether the answer begins within a thought, as where the template opens one.
        parses_thoughts: take thoughts out of the content.
    """

    def __init__(self, tools: Parameters | None, *, in_thought: bool = False, parses_thoughts: bool = True) -> None:
        self._tools = tools
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
            self._waiting, self._state = text[len(_THINK) :], self._thought_start
            return True
        if _THINK.startswith(text) and not self._ended:
            return False
        self._state = self._text
        return True

    def _thought_start(self) -> bool:
        self._waiting = self._waiting.lstrip("\n")
        if self._waiting:
            self._state = self._thought
        return bool(self._waiting)

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
        if self._tools is None:
            return self._say(len(self._waiting))
        if not self._has_content and self._waiting.lstrip()[:1] in ("{", "[", "<"):
            begin = self._waiting.lstrip()
            if begin[0] != "<" or begin.startswith(_PYTHON_TAG):
                self._state = self._json
                return True
            if _PYTHON_TAG.startswith(begin) and not self._ended:
                return False
        at = self._waiting.find(CALL)
        if at >= 0:
            self._say(len(self._waiting[:at].rstrip()))
            self._waiting, self._state = self._waiting.lstrip()[len(CALL) :], self._call
            return True
        return self._say(len(self._waiting) if self._ended else _certain(self._waiting, CALL))

    def _say(self, count: int) -> bool:
        """So many characters are content."""
        self._read.content += self._waiting[:count]
        self._has_content = self._has_content or bool(self._waiting[:count].strip())
        self._waiting = self._waiting[count:]
        return False

    def _call(self) -> bool:
        at = find_end(self._waiting)
        if at < 0 and not self._ended:
            return False
        calls = read_calls(self._waiting if at < 0 else self._waiting[:at], self._tools or {})
        if not calls:
            at = self._waiting.find(CALL_END)
        before, mark, after = self._waiting, "", ""
        if at >= 0:
            before, mark, after = self._waiting[:at], CALL_END, self._waiting[at + len(CALL_END) :]
        if calls:
            self._read.tool_calls += calls
        else:
            self._read.content += CALL + before + mark
        self._waiting, self._skips_space, self._state = after, bool(calls), self._text
        return bool(after) or (self._ended and bool(mark))

    def _json(self) -> bool:
        if not self._ended:
            return False
        calls = read_calls(self._waiting.strip().removeprefix(_PYTHON_TAG), self._tools or {})
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


def _reader(question: Question, in_thought: bool) -> AnswerParser:
    tools = None if question.tools is None else question.tools.parameters
    return AnswerParser(tools, in_thought=in_thought, parses_thoughts=question.thoughts != "raw")


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
