"""OpenAI's chat completions: replies and stream chunks. https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.forms.form import ReplyContext, StreamWriter
from babylon_assets.serving.http.protocol import ApiError, ChatRequest, Token
from babylon_assets.serving.http.request_reading import RequestReader

_reader = RequestReader(ChatRequest, lambda request: request)
LAST_EVENT = b"data: [DONE]\n\n"


class ChatCompletions:
    """The protocol of /v1/chat/completions."""

    prefix = "chatcmpl-"

    def read(self, body: bytes) -> ChatRequest:
        return _reader.read(body)

    def reply(self, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        """Token ids are in it where they were asked for."""
        request = context.request
        body: dict[str, Any] = {
            "id": context.id,
            "object": "chat.completion",
            "created": context.created,
            "model": context.model,
            "choices": [_choice(request, index, answer) for index, answer in enumerate(answers)],
            "usage": usage(answers),
            "system_fingerprint": context.model,
        }
        if request.return_token_ids:
            body["prompt_token_ids"] = answers[0].prompt_token_ids
        return msgspec.json.encode(body)

    def stream(self, context: ReplyContext) -> StreamWriter:
        return _Chunks(context)

    def error(self, error: ApiError) -> bytes:
        return error.body()


def _choice(request: ChatRequest, index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.shown, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message |= {"content": answer.shown or None, **_calls(request, answer.tool_calls)}
    body: dict[str, Any] = {
        "index": index,
        "message": message,
        "logprobs": _logprobs(answer.tokens),
        "finish_reason": _finish_reason(request, answer),
    }
    if request.return_token_ids:
        body["token_ids"] = answer.token_ids
    return body


def _finish_reason(request: ChatRequest, answer: Answer) -> str:
    is_older = request.functions and answer.finish_reason == "tool_calls"
    return "function_call" if is_older else answer.finish_reason


def _calls(request: ChatRequest, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """What a message has of its calls: all of them, or the one that the older form has room for."""
    if request.functions:
        return {"function_call": _function(calls[0])}
    return {"tool_calls": list(map(_tool_call, calls))}


def _function(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": _function(call)}


def _logprobs(tokens: Sequence[Token] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": tokens, "refusal": None}


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """How many tokens the answers to one question took."""
    prompt = answers[0].prompt_tokens if answers else 0
    completion = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class ChunkStream:
    """What the streams of both kinds of completions have: the usage at their end where it was asked for, and errors."""

    def __init__(self, context: ReplyContext, frame: Mapping[str, Any]) -> None:
        self._context, self._frame = context, frame

    def end(self, answers: Sequence[Answer]) -> Iterable[bytes]:
        options = self._context.request.stream_options
        if answers and options is not None and options.include_usage:
            yield event({**self._frame, "choices": [], "usage": usage(answers)})
        yield LAST_EVENT

    def fail(self, error: ApiError) -> Iterable[bytes]:
        return [b"data: " + error.body() + b"\n\n", LAST_EVENT]


class _Chunks(ChunkStream):
    """A streamed answer as chunks."""

    def __init__(self, context: ReplyContext) -> None:
        frame = {
            "id": context.id,
            "object": "chat.completion.chunk",
            "created": context.created,
            "model": context.model,
            "system_fingerprint": context.model,
        }
        super().__init__(context, frame)
        self._calls = [0] * context.count

    def begin(self) -> Iterable[bytes]:
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self._context.count)]

    def write(self, piece: Piece) -> Iterable[bytes]:
        if piece.reasoning:
            yield self._chunk(piece.index, {"reasoning_content": piece.reasoning})
        if piece.text or piece.tokens:
            yield self._chunk(piece.index, {"content": piece.text}, tokens=piece.tokens)
        for call in piece.tool_calls:
            number, self._calls[piece.index] = self._calls[piece.index], self._calls[piece.index] + 1
            if not self._context.request.functions:
                yield self._chunk(piece.index, {"tool_calls": [{"index": number, **_tool_call(call)}]})
            elif number == 0:
                yield self._chunk(piece.index, {"function_call": _function(call)})
        if piece.whole is not None:
            yield self._end(piece.index, piece.whole)

    def _end(self, index: int, whole: Answer) -> bytes:
        """The end of one answer; token ids come with it where they were asked for."""
        reason = _finish_reason(self._context.request, whole)
        if not self._context.request.return_token_ids:
            return self._chunk(index, {}, reason)
        ids = {"token_ids": whole.token_ids}
        return self._chunk(index, {}, reason, ids, prompt_token_ids=whole.prompt_token_ids)

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        ids: Mapping[str, Any] | None = None,
        *,
        tokens: Sequence[Token] | None = None,
        **beside: Any,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": _logprobs(tokens), "finish_reason": finish_reason}
        return event({**self._frame, "choices": [{**choice, **(ids or {})}], **beside})
