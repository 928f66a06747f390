"""OpenAI's older completions: the prompt is asked as one message of a user, with the policy's own chat template.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.forms.chat_completions import LAST_EVENT, event, usage
from babylon_assets.serving.http.forms.form import Asked, StreamWriter
from babylon_assets.serving.http.protocol import (
    ApiError,
    ChatMessage,
    ChatRequest,
    StreamOptions,
    Token,
    check,
    ignored_fields,
    refusals,
    repaired,
)

#: The longest answer where none is said, as in OpenAI's API.
DEFAULT_TOKENS = 16


class _Request(msgspec.Struct):
    model: str
    prompt: str | list[str | int | list[int]]
    max_tokens: int | None = DEFAULT_TOKENS
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1 and isinstance(self.prompt[0], str):
            return self.prompt[0]
        reason = "prompt has to be one text: tokens and several prompts are not supported"
        raise ApiError(400, reason, param="prompt", code="unsupported_parameter")


_decode = msgspec.json.Decoder(_Request).decode
_KNOWN = {field.name for field in msgspec.structs.fields(_Request)}


class TextCompletions:
    """The protocol of /v1/completions."""

    prefix = "cmpl-"

    def read(self, body: bytes) -> ChatRequest:
        with refusals():
            body = repaired(body)
            given = _decode(body)
            for name in ("echo", "suffix"):
                if getattr(given, name):
                    raise ApiError(400, f"{name} is not supported", param=name, code="unsupported_parameter")
            request = msgspec.convert(_chat(given), ChatRequest)
            request.messages = [ChatMessage("user", given.text)]
            request.ignored = ignored_fields(body, _KNOWN)
        check(request)
        return request

    def reply(self, asked: Asked, answers: Sequence[Answer]) -> bytes:
        choices = [
            _choice(index, answer.shown, answer.tokens, answer.finish_reason) for index, answer in enumerate(answers)
        ]
        return msgspec.json.encode({**_frame(asked), "choices": choices, "usage": usage(answers)})

    def stream(self, asked: Asked) -> StreamWriter:
        return _Chunks(asked)

    def error(self, error: ApiError) -> bytes:
        return error.body()


def _chat(given: _Request) -> dict[str, Any]:
    """The fields that both protocols have; a thought is a part of the text."""
    both = ("model", "n", "temperature", "top_p", "stop", "seed", "stream", "user", "metadata", "max_tokens")
    fields = {name: getattr(given, name) for name in both}
    if given.stream_options is not None:
        fields["stream_options"] = {"include_usage": given.stream_options.include_usage}
    if given.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": given.logprobs}
    return {**fields, "messages": [{"role": "user", "content": ""}], "reasoning_format": "raw"}


def _frame(asked: Asked) -> dict[str, Any]:
    return {"id": asked.id, "object": "text_completion", "created": asked.created, "model": asked.model}


def _choice(index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": _logprobs(tokens), "finish_reason": finish_reason}


def _logprobs(tokens: Sequence[Token] | None) -> Mapping[str, Any] | None:
    if tokens is None:
        return None
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{likely.token: likely.logprob for likely in token.top_logprobs} for token in tokens],
        "text_offset": [],
    }


class _Chunks:
    """A streamed answer as chunks."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._frame = asked, _frame(asked)

    def begin(self) -> Iterable[bytes]:
        return []

    def write(self, piece: Piece) -> Iterable[bytes]:
        end = None if piece.whole is None else piece.whole.finish_reason
        if piece.text or piece.tokens or end is not None:
            choice = _choice(piece.index, piece.text, piece.tokens, end)
            yield event({**self._frame, "choices": [choice]})

    def end(self, answers: Sequence[Answer]) -> Iterable[bytes]:
        options = self._asked.request.stream_options
        if answers and options is not None and options.include_usage:
            yield event({**self._frame, "choices": [], "usage": usage(answers)})
        yield LAST_EVENT

    def fail(self, error: ApiError) -> Iterable[bytes]:
        return [b"data: " + error.body() + b"\n\n", LAST_EVENT]
