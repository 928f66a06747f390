"""OpenAI's responses, without state: a request holds its whole conversation.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from babylon_assets.serving.answers import Answer
from babylon_assets.serving.http.forms.form import ReplyContext, StreamWriter
from babylon_assets.serving.http.forms.response_events import ResponseEvents, response
from babylon_assets.serving.http.protocol import MOST_MESSAGES, ApiError, ChatRequest
from babylon_assets.serving.http.request_reading import RequestReader

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")


class _Function(msgspec.Struct):
    name: str
    type: Literal["function"] = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Named(msgspec.Struct):
    name: str
    type: Literal["function"] = "function"


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class _TextSettings(msgspec.Struct):
    format: _Format | None = None


class _Request(msgspec.Struct):
    model: str
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    tools: list[_Function] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Named | None = None
    text: _TextSettings | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None


class OpenAIResponses:
    """The protocol of /v1/responses."""

    prefix = "resp_"

    def read(self, body: bytes) -> ChatRequest:
        return _reader.read(body)

    def reply(self, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        return msgspec.json.encode(response(context, answers[0]))

    def stream(self, context: ReplyContext) -> StreamWriter:
        return ResponseEvents(context)

    def error(self, error: ApiError) -> bytes:
        return error.body()


def _chat(given: _Request) -> dict[str, Any]:
    """The request in the one form."""
    for name in ("previous_response_id", "conversation"):
        if getattr(given, name):
            reason = f"{name} is not supported: the gateway keeps no conversations; send all of it as input"
            raise ApiError(400, reason, param=name, code="unsupported_parameter")
    fields: dict[str, Any] = {
        **{"model": given.model, "messages": list(_messages(given)), "max_tokens": given.max_output_tokens},
        **{"temperature": given.temperature, "top_p": given.top_p, "stream": given.stream},
        **{"user": given.user, "metadata": given.metadata},
    }
    if given.tools:
        fields["tools"] = [{"type": "function", "function": _function(tool)} for tool in given.tools]
        named = given.tool_choice
        fields["tool_choice"] = {"function": {"name": named.name}} if isinstance(named, _Named) else named
    form = given.text.format if given.text is not None else None
    if form is not None:
        fields["response_format"] = {"type": form.type}
        if form.type == "json_schema":
            fields["response_format"]["json_schema"] = _function(form)
    return fields


_reader = RequestReader(_Request, _chat)


def _function(value: _Function | _Format) -> dict[str, Any]:
    fields = msgspec.to_builtins(value)
    return {name: field for name, field in fields.items() if name != "type" and field is not None}


def _messages(given: _Request) -> Iterator[dict[str, Any]]:
    """The conversation; calls of tools join the message of the assistant before them."""
    if given.instructions:
        yield {"role": "system", "content": given.instructions}
    items: Any = [{"role": "user", "content": given.input}] if isinstance(given.input, str) else given.input
    turn: dict[str, Any] | None = None
    for number, item in enumerate(items):
        kind = item.get("type", "message")
        if kind in ("function_call", "reasoning") or (kind == "message" and item.get("role") == "assistant"):
            if turn is not None and kind != "function_call" and (turn.get("tool_calls") or turn["content"]):
                yield turn
                turn = None
            turn = _assistant_turn(turn or {"role": "assistant", "content": ""}, kind, item, number)
            continue
        if turn is not None:
            yield turn
            turn = None
        yield _message(kind, item, number)
    if turn is not None:
        yield turn


def _assistant_turn(turn: dict[str, Any], kind: str, item: dict[str, Any], number: int) -> dict[str, Any]:
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments", "")}
        call = {"id": item.get("call_id", ""), "type": "function", "function": function}
        return {**turn, "tool_calls": [*turn.get("tool_calls", ()), call]}
    if kind == "reasoning":
        thought = _text(item.get("content") or item.get("summary") or "", number)
        return {**turn, "reasoning_content": thought} if thought else turn
    return {**turn, "content": _text(item.get("content"), number)}


def _message(kind: str, item: dict[str, Any], number: int) -> dict[str, Any]:
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _text(item.get("output"), number)}
    if kind != "message":
        reason = f"input[{number}] is of type {str(kind)[:40]!r}, which is not supported"
        raise ApiError(400, reason, param="input", code="unsupported_parameter")
    return {"role": item.get("role"), "content": _text(item.get("content"), number)}


def _text(content: Any, number: int) -> str:
    """The text of an item's content."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXTS:
            reason = f"input[{number}] may hold text only, not {str(kind)[:40]!r}: the policies read nothing else"
            raise ApiError(400, reason, param="input", code="unsupported_content")
        texts.append(str(part.get("text", part.get("refusal", ""))))
    return "".join(texts)
