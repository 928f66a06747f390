"""Messages in the forms that others read and write: chat templates, HTTP bodies, records of conversations.

A message's content is a text, null, or a list of parts; tool calls are written in OpenAI's form, today's and the one
before it. Reading takes all of these; what is written is today's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from babylon_assets.domain.content_ids import canonical_json
from babylon_assets.domain.json_nesting import decode_shallow, is_too_deep
from babylon_assets.domain.trajectories import HasExchange, Message, ToolCall

NO_ROLE = "calls with a message without a role"
NO_CONTENT = "calls with a message whose content cannot be read"
NO_TOOL_CALL = "calls with a tool call that cannot be read"
NO_TOOLS = "calls with tools that cannot be read"


class UnreadableMessageError(Exception):
    """A message that is none; its text is the reason, one of those above."""


def read_message(value: Any) -> Message:
    """A message of a recorded conversation.

    Raises:
        UnreadableMessageError: it has no role, or its content or a tool call is of no known form.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise UnreadableMessageError(NO_ROLE)
    content, parts = _read_content(value.get("content"))
    of_tool = value["role"] in ("tool", "function")
    return Message(
        role=value["role"],
        content=content,
        tool_calls=read_tool_calls(value.get("tool_calls") or value.get("toolCalls"), value.get("function_call")),
        tool_call_id=_text(value.get("tool_call_id") or value.get("toolCallId")) if of_tool else None,
        name=_text(value.get("name")) if of_tool else None,
        reasoning=_text(value.get("reasoning_content") or value.get("reasoning")),
        parts=parts,
    )


def _read_content(content: Any) -> tuple[str, str | None]:
    """The text of a content, and the JSON of all of it where it is more than text."""
    if content is None:
        return "", None
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list) or is_too_deep(content):
        raise UnreadableMessageError(NO_CONTENT)
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    known = "".join(text for text in texts if isinstance(text, str))
    is_text = all(isinstance(text, str) for text in texts)
    return known, None if is_text else canonical_json(content).decode()


def read_tool_calls(values: Any, function_call: Any = None) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's form; `function_call` is the one call of its older form. Arguments may be objects.

    Raises:
        UnreadableMessageError: one of them has no name.
    """
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if function_call:
        listed.append({"function": function_call})
    return tuple(_read_tool_call(value) for value in listed)


def _read_tool_call(value: Any) -> ToolCall:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnreadableMessageError(NO_TOOL_CALL)
    arguments = function.get("arguments")
    if is_too_deep(arguments):
        raise UnreadableMessageError(NO_TOOL_CALL)
    if not isinstance(arguments, str):
        arguments = canonical_json({} if arguments is None else arguments).decode()
    return ToolCall(_text(value.get("id")) or "", function["name"], arguments)


def read_tools(value: Any) -> str | None:
    """The tools that were offered as canonical JSON; None where there were none.

    Raises:
        UnreadableMessageError: one of them is no object, or nested too deeply.
    """
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(tool, dict) for tool in value) or is_too_deep(value):
        raise UnreadableMessageError(NO_TOOLS)
    return canonical_json(value).decode()


def decoded_tools(tools: str | None) -> list[dict[str, Any]] | None:
    """The tools that were offered as a list in OpenAI's form."""
    return msgspec.json.decode(tools, type=list[dict[str, Any]]) if tools else None


def chat_turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates read them: arguments of tool calls are objects, a thought is `reasoning_content`."""
    turns = [_turn(message, _as_object) for message in messages]
    return [{**turn, "role": "tool"} if turn["role"] == "function" else turn for turn in turns]


def wire_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as an HTTP body has them: arguments of tool calls are texts, contents in parts are lists again."""
    return [_turn(message, str) for message in messages]


def answer_message(call: HasExchange) -> Message:
    """The answer of a call as the message that follows its conversation."""
    return Message("assistant", call.response, call.tool_calls, reasoning=call.reasoning)


def _turn(message: Message, arguments_of: Any) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.parts is not None:
        turn["content"] = msgspec.json.decode(message.parts)
    if message.tool_calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [_wire_call(call, arguments_of) for call in message.tool_calls]
    others = {"tool_call_id": message.tool_call_id, "name": message.name, "reasoning_content": message.reasoning}
    return turn | {name: value for name, value in others.items() if value is not None}


def _wire_call(call: ToolCall, arguments_of: Any) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_of(call.arguments)}
    return {**({"id": call.id} if call.id else {}), "type": "function", "function": function}


def _as_object(arguments: str) -> Any:
    """The arguments of a tool call as an object; as the text that they are where they are none."""
    try:
        value = decode_shallow(arguments)
    except (msgspec.DecodeError, UnicodeError):
        return arguments
    return value if isinstance(value, dict) else arguments


def shown_text(message: Message) -> str:
    """A message's text with its tool calls spelled out, for people and for judges."""
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n".join([*filter(None, [message.reasoning, message.content]), *calls])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
