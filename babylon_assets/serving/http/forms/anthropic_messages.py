"""Anthropic's messages. https://docs.anthropic.com/en/api/messages

A `tool_result` becomes a message of a tool, a `tool_use` a call of one, `thinking` the thought before an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.forms.form import ReplyContext, StreamWriter
from babylon_assets.serving.http.protocol import MOST_MESSAGES, ApiError, ChatRequest
from babylon_assets.serving.http.request_reading import RequestReader

_ENDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS = {
    **{401: "authentication_error", 403: "permission_error", 404: "not_found_error"},
    **{413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"},
}


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str


class _RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    pass


class _ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text] | None = None


_Block = _Text | _Thinking | _RedactedThinking | _ToolUse | _ToolResult


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None
    trajectory: str | None = None
    step: str | None = None
    at: str | None = None


class _Request(msgspec.Struct):
    model: str
    max_tokens: int
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=MOST_MESSAGES)]
    system: str | list[_Text] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: _Metadata | None = None


class AnthropicMessages:
    """The protocol of /v1/messages."""

    prefix = "msg_"

    def read(self, body: bytes) -> ChatRequest:
        return _reader.read(body)

    def reply(self, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        (answer,) = answers
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.shown or not answer.tool_calls:
            content.append({"type": "text", "text": answer.shown})
        content += [{**_tool_use(call), "input": _arguments(call)} for call in answer.tool_calls]
        body = {**_frame(context), "content": content, "stop_reason": _ENDS.get(answer.finish_reason, "end_turn")}
        return msgspec.json.encode({**body, "usage": _usage(answer)})

    def stream(self, context: ReplyContext) -> StreamWriter:
        return _Events(context)

    def error(self, error: ApiError) -> bytes:
        kind = _ERRORS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": str(error)}})


def _chat(given: _Request) -> dict[str, Any]:
    """The request in the one form."""
    messages = [message for turn in given.messages for message in _messages(turn)]
    if given.system:
        messages.insert(0, {"role": "system", "content": _joined(given.system)})
    fields: dict[str, Any] = {
        **{"model": given.model, "max_tokens": given.max_tokens, "messages": messages, "stream": given.stream},
        **{"temperature": given.temperature, "top_p": given.top_p, "stop": given.stop_sequences},
    }
    if given.tools:
        fields["tools"] = [{"type": "function", "function": _function(tool)} for tool in given.tools]
        fields["tool_choice"] = _choice(given.tool_choice)
    if given.metadata is not None:
        fields["user"] = given.metadata.user_id
        caller = {name: getattr(given.metadata, name) for name in ("trajectory", "step", "at")}
        fields["metadata"] = {name: value for name, value in caller.items() if value is not None}
    return fields


_reader = RequestReader(_Request, _chat)


def _joined(content: str | Sequence[_Text] | None) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def _messages(message: _Message) -> Iterator[dict[str, Any]]:
    """One of Anthropic's messages: results of tools stand in messages of their own, before the text beside them."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    blocks = message.content
    for block in blocks:
        if isinstance(block, _ToolResult):
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _joined(block.content)}
    rest = [block for block in blocks if not isinstance(block, _ToolResult)]
    if not rest and blocks:
        return
    turn: dict[str, Any] = {"role": message.role, "content": "".join(b.text for b in rest if isinstance(b, _Text))}
    thought = "\n".join(block.thinking for block in rest if isinstance(block, _Thinking))
    calls = [_wire_call(block) for block in rest if isinstance(block, _ToolUse)]
    yield {**turn, **({"reasoning_content": thought} if thought else {}), **({"tool_calls": calls} if calls else {})}


def _wire_call(block: _ToolUse) -> dict[str, Any]:
    arguments = msgspec.json.encode(block.input).decode()
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _function(tool: _Tool) -> dict[str, Any]:
    described = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **described, "parameters": tool.input_schema}


def _choice(choice: _ToolChoice | None) -> Any:
    if choice is None:
        return "auto"
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name or ""}}
    return {"any": "required"}.get(choice.type, choice.type)


def _frame(context: ReplyContext) -> dict[str, Any]:
    frame = {"id": context.id, "type": "message", "role": "assistant", "model": context.model}
    return {**frame, "content": [], "stop_reason": None, "stop_sequence": None}


def _usage(answer: Answer) -> dict[str, int]:
    return {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _arguments(call: ToolCall) -> Any:
    """The arguments as an object, which the protocol wants."""
    try:
        value = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


class _Events:
    """A streamed answer as events: blocks one after the other, each begun, given in pieces and ended."""

    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._index, self._open = -1, ""

    def begin(self) -> Iterable[bytes]:
        yield _event(
            "message_start", message={**_frame(self._context), "usage": {"input_tokens": 0, "output_tokens": 0}}
        )

    def write(self, piece: Piece) -> Iterable[bytes]:
        if piece.reasoning:
            yield from self._in("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": piece.reasoning})
        if piece.text:
            yield from self._in("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": piece.text})
        for call in piece.tool_calls:
            yield from self._in(call.id, _tool_use(call))
            yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})

    def _in(self, name: str, block: Mapping[str, Any]) -> Iterable[bytes]:
        """Be in this block: what is open is ended, where it is another one."""
        if self._open != name:
            yield from self._close()
            self._index, self._open = self._index + 1, name
            yield _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> Iterable[bytes]:
        if self._open:
            yield _event("content_block_stop", index=self._index)
        self._open = ""

    def end(self, answers: Sequence[Answer]) -> Iterable[bytes]:
        if self._index < 0:
            yield from self._in("text", {"type": "text", "text": ""})
        yield from self._close()
        for answer in answers:
            delta = {"stop_reason": _ENDS.get(answer.finish_reason, "end_turn"), "stop_sequence": None}
            yield _event("message_delta", delta=delta, usage=_usage(answer))
        yield _event("message_stop")

    def fail(self, error: ApiError) -> Iterable[bytes]:
        body = AnthropicMessages().error(error)
        return [b"event: error\ndata: " + body + b"\n\n"]
