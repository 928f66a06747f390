"""OpenAI's older completions: the prompt is asked as one message of a user, with the policy's own chat template.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.forms.chat_completions import ChunkStream, event, usage
from babylon_assets.serving.http.forms.form import ReplyContext, StreamWriter
from babylon_assets.serving.http.protocol import ApiError, ChatRequest, StreamOptions, Token
from babylon_assets.serving.http.request_reading import RequestReader

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


class TextCompletions:
    """The protocol of /v1/completions."""

    prefix = "cmpl-"

    def read(self, body: bytes) -> ChatRequest:
        return _reader.read(body)

    def reply(self, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        choices = [
            _choice(index, answer.shown, answer.tokens, answer.finish_reason) for index, answer in enumerate(answers)
        ]
        return msgspec.json.encode({**_frame(context), "choices": choices, "usage": usage(answers)})

    def stream(self, context: ReplyContext) -> StreamWriter:
        return _Chunks(context)

    def error(self, error: ApiError) -> bytes:
        return error.body()


def _chat(given: _Request) -> dict[str, Any]:
    """The fields that both protocols have; a thought is a part of the text."""
    for name in ("echo", "suffix"):
        if getattr(given, name):
            raise ApiError(400, f"{name} is not supported", param=name, code="unsupported_parameter")
    both = ("model", "n", "temperature", "top_p", "stop", "seed", "stream", "user", "metadata", "max_tokens")
    fields = {name: getattr(given, name) for name in both}
    if given.stream_options is not None:
        fields["stream_options"] = {"include_usage": given.stream_options.include_usage}
    if given.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": given.logprobs}
    return {**fields, "messages": [{"role": "user", "content": given.text}], "reasoning_format": "raw"}


_reader = RequestReader(_Request, _chat)


def _frame(context: ReplyContext) -> dict[str, Any]:
    return {"id": context.id, "object": "text_completion", "created": context.created, "model": context.model}


def _choice(index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": _logprobs(tokens), "finish_reason": finish_reason}


def _logprobs(tokens: Sequence[Token] | None) -> Mapping[str, Any] | None:
    if tokens is None:
        return None
    return {
        "tokens": list(map(_name, tokens)),
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{_name(likely): likely.logprob for likely in token.top_logprobs} for token in tokens],
        "text_offset": [],
    }


def _name(token: Token) -> str:
    """A token's text; of a part of a character its bytes, as OpenAI writes them: all such parts have one text."""
    if token.bytes is None or bytes(token.bytes) == token.token.encode():
        return token.token
    return "bytes:" + "".join(f"\\x{value:02x}" for value in token.bytes)


class _Chunks(ChunkStream):
    """A streamed answer as chunks."""

    def __init__(self, context: ReplyContext) -> None:
        super().__init__(context, _frame(context))

    def begin(self) -> Iterable[bytes]:
        return []

    def write(self, piece: Piece) -> Iterable[bytes]:
        end = None if piece.whole is None else piece.whole.finish_reason
        if piece.text or piece.tokens or end is not None:
            choice = _choice(piece.index, piece.text, piece.tokens, end)
            yield event({**self._frame, "choices": [choice]})
