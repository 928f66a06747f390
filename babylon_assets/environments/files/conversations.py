"""The conversations of a file: where their answers are, and their messages as texts with their tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from babylon_assets.domain.chat_turns import NO_CONTENT, NO_ROLE, NO_TOOL_CALL, UnreadableMessageError, read_message
from babylon_assets.domain.trajectories import Message

#: In the words of a file.
_REASONS = {
    NO_ROLE: "a message without a role",
    NO_CONTENT: "a message whose content cannot be read",
    NO_TOOL_CALL: "a tool call that cannot be read",
}


class UnreadableEntryError(Exception):
    """What cannot be read, and why."""


def read_turns(items: list[Any]) -> tuple[list[dict[str, Any]], str | None]:
    """Each answer with the conversation before it, and why what comes after them cannot be read.

    `step` counts them where there are several.
    """
    turns: list[dict[str, Any]] = []
    before: list[Any] = []
    fault = None
    choices = any(isinstance(item, dict) and "message" in item for item in items)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            fault = "a message that is no object"
            break
        message = item.get("message", item)
        message = message if isinstance(message, Mapping) else {}
        is_answer = "message" in item if choices else index == len(items) - 1 and item.get("role") == "assistant"
        if is_answer:
            turns.append({"messages": list(before), "answer": message, "choice": item})
        before.append(message)
    if not turns and fault is None:
        fault = "a conversation without an answer"
    several = len(turns) > 1 or fault is not None
    return [{**turn, "step": number} if several else turn for number, turn in enumerate(turns)], fault


def read_messages(values: Any) -> list[Message]:
    """The messages of a conversation.

    Raises:
        UnreadableEntryError: it is no list of messages.
    """
    if not isinstance(values, list):
        raise UnreadableEntryError("an answer without a prompt or without a text")
    return [read_message_with_text(value) for value in values]


def read_message_with_text(value: Any) -> Message:
    """A message with its tool calls, its thought and its parts.

    Raises:
        UnreadableEntryError: it has no role, or neither a text nor a tool call.
    """
    try:
        message = read_message(value)
    except UnreadableMessageError as error:
        raise UnreadableEntryError(_REASONS.get(str(error), str(error))) from None
    if value.get("content") is None and not message.tool_calls:
        raise UnreadableEntryError("a message without a text")
    return message
