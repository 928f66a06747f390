"""What a server behind the gateway gives: replies and server-sent events, checked, and put together to answers.

A server may answer 200 and mean an error, or be no such server at all. What is taken from it has the types that the
record and the client's reply need; anything else is an error of the server's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Question
from babylon_assets.serving.http.protocol import ApiError, Token

#: How vLLM writes a token whose id was asked for in place of its text.
_TOKEN_ID = re.compile(r"token_id:(\d{1,9})")
#: Lines of data in one event.
_MOST_EVENT_LINES = 10_000
_Id = Annotated[int, Meta(ge=0, lt=2**31)]
_Count = Annotated[int, Meta(ge=0, lt=2**31)]


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[Annotated[int, Meta(ge=0, le=255)]] | None = None
    top_logprobs: list[_Logprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _CalledFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    """A call of a reply, whole, or a part of one in a chunk; `index` says which."""

    index: int | None = None
    id: str | None = None
    function: _CalledFunction | None = None


class _Text(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    """A choice of a reply, which has a message, or of a chunk, which has a delta."""

    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: Annotated[str, Meta(max_length=40, pattern="^[ -~]*$")] | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[_Id] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count | None = None


class _Frame(msgspec.Struct):
    """A reply or a chunk; `error` stands in the place of either."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    prompt_token_ids: list[_Id] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Frame).decode


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The data of server-sent events, up to `[DONE]`; comments, ids, names and events without data are passed over.

    https://html.spec.whatwg.org/multipage/server-sent-events.html

    Raises:
        ApiError: an event does not end.
    """
    data: list[str] = []
    async for line in lines:
        name, _, value = line.partition(":")
        if name == "data":
            if len(data) == _MOST_EVENT_LINES:
                raise _no_answer()
            data.append(value.removeprefix(" "))
        elif not line and data:
            event, data = "\n".join(data), []
            if event.strip() == "[DONE]":
                return
            if event.strip():
                yield event
    if data and "".join(data).strip() not in ("", "[DONE]"):
        yield "\n".join(data)


@dataclass(slots=True)
class GatheredReply:
    """What of an answer has come so far: one reply, or the chunks of a stream.

    Attributes:
        thoughts, calls: what the server took apart from the text itself.
        size: how many characters and tokens of an answer came, whatever stood around them.
        raw: the server gives log-probabilities at temperature 1 whatever was asked, as vLLM does by default; of others
            they are taken only where nothing was changed about the distribution.
    """

    question: Question
    raw: bool
    texts: list[str] = field(default_factory=list)
    content: list[_Logprob] = field(default_factory=list)
    ids: list[int] | None = None
    prompt_ids: list[int] | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    thoughts: list[str] = field(default_factory=list)
    calls: dict[int, ToolCall] = field(default_factory=dict)
    size: int = 0

    def take_reply(self, body: bytes) -> None:
        """A whole reply.

        Raises:
            msgspec.MsgspecError: it is none.
            ApiError: it is an error, or has no answer in it.
        """
        choices = self._take(body)
        if not choices or choices[0].message is None:
            raise _no_answer()
        self._take_choice(choices[0], choices[0].message)
        self.finish_reason = self.finish_reason or "stop"

    def take_chunk(self, data: str) -> Iterator[tuple[str, str, list[Token] | None]]:
        """A chunk of a stream; gives what of it is for the client now: text, thought and tokens. Calls come whole.

        Raises:
            msgspec.MsgspecError: it is none.
            ApiError: it is an error.
        """
        for choice in self._take(data):
            text, thought, tokens = self._take_choice(choice, choice.delta)
            if text or thought or tokens:
                yield text, thought, tokens

    def _take(self, body: bytes | str) -> Sequence[_Choice]:
        """What stands around the choices: the prompt's tokens, how many there were of both."""
        frame = _decode(body)
        if frame.error is not None:
            raise _no_answer()
        self.prompt_ids = frame.prompt_token_ids or self.prompt_ids
        self.usage = frame.usage or self.usage
        return frame.choices or ()

    def _take_choice(self, choice: _Choice, part: _Text | None) -> tuple[str, str, list[Token] | None]:
        part = part or _Text()
        text, thought = part.content or "", part.reasoning_content or part.reasoning or ""
        self.size += len(text) + len(thought)
        self.thoughts.append(thought)
        for place, call in enumerate(part.tool_calls or ()):
            self._take_call(place if call.index is None else call.index, call)
        content = (choice.logprobs.content if choice.logprobs is not None else None) or []
        self.texts.append(text)
        self.content += content
        self.size += len(content) + len(choice.token_ids or ())
        self.ids = self.ids if choice.token_ids is None else [*(self.ids or ()), *choice.token_ids]
        self.finish_reason = choice.finish_reason or self.finish_reason
        wanted = self.question.top_logprobs is not None and content
        return text, thought, list(map(_token, content)) if wanted else None

    def _take_call(self, place: int, part: _ToolCall) -> None:
        before, function = self.calls.get(place, ToolCall("", "", "")), part.function or _CalledFunction()
        self.size += len(function.name or "") + len(function.arguments or "")
        self.calls[place] = ToolCall(
            id=before.id or part.id or "",
            name=before.name + (function.name or ""),
            arguments=before.arguments + (function.arguments or ""),
        )

    def answer(self) -> Answer:
        """All of it.

        Raises:
            ApiError: the server ended before the answer did.
        """
        if self.finish_reason is None:
            raise ApiError(502, "the server behind the gateway broke off its answer", code="upstream")
        ids, content, usage = self._token_ids(), self.content, self.usage or _Usage()
        completion_tokens = usage.completion_tokens
        return Answer(
            text="".join(self.texts),
            finish_reason=self.finish_reason,
            prompt_token_ids=self.prompt_ids,
            token_ids=ids,
            logprobs=self._logprobs(ids),
            tokens=None if self.question.top_logprobs is None or not content else list(map(_token, content)),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=len(ids or ()) if completion_tokens is None else completion_tokens,
            reasoning="".join(self.thoughts),
            tool_calls=tuple(call for _, call in sorted(self.calls.items()) if call.name),
        )

    def _token_ids(self) -> list[int] | None:
        """As they are, or as they are written in place of the tokens' texts."""
        if self.ids is None and self.content and all(_TOKEN_ID.fullmatch(item.token) for item in self.content):
            return [int(item.token.partition(":")[2]) for item in self.content]
        return self.ids

    def _logprobs(self, ids: list[int] | None) -> list[float] | None:
        changed = self.question.temperature != 1 or self.question.top_p != 1
        if not self.content or (changed and not self.raw) or self.question.is_constrained:
            return None  # among which tokens one was drawn is not known
        if ids is not None and len(ids) != len(self.content):
            return None  # of which tokens they are is not known
        return [item.logprob for item in self.content]


def _no_answer() -> ApiError:
    return ApiError(502, "the server behind the gateway gave an error instead of an answer", code="upstream")


def _token(entry: _Logprob) -> Token:
    return Token(
        entry.token, entry.logprob, _bytes_of(entry), [_alternative(other) for other in entry.top_logprobs or ()]
    )


def _alternative(entry: _Logprob) -> Token:
    return Token(entry.token, entry.logprob, _bytes_of(entry), [])


def _bytes_of(entry: _Logprob) -> Sequence[int]:
    return list(entry.token.encode()) if entry.bytes is None else entry.bytes
