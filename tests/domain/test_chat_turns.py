"""Messages with tool calls, and the form of those without, which is what it always was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from babylon_assets.domain.answer_texts import FORMS
from babylon_assets.domain.chat_turns import chat_turns, read_message, wire_messages
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.trajectories import Exchange, Message, ToolCall, decode_chat, encode_chat

WIRE: list[dict[str, Any]] = [
    {"role": "user", "content": "look"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}],
        "reasoning_content": "hm",
    },
    {"role": "tool", "content": "7", "tool_call_id": "c1", "name": "look"},
    {"role": "user", "content": [{"text": "see", "type": "text"}, {"type": "image_url"}]},
]


def test_what_has_no_tools_has_the_bytes_that_it_had() -> None:
    chat = encode_chat([Exchange([Message("system", "Trade."), Message("user", "A")], "buy")])
    plain = b'[{"messages":[{"content":"Trade.","role":"system"},{"content":"A","role":"user"}],"response":"buy"}]'
    assert chat == plain
    assert content_id(Message("user", "A")) == content_id({"role": "user", "content": "A"})


def test_messages_come_back_from_the_wire_and_from_a_chat() -> None:
    messages = [read_message(message) for message in WIRE]
    assert wire_messages(messages) == WIRE
    exchange = Exchange(messages, "", '[{"type":"function"}]', messages[1].tool_calls, "so")
    assert decode_chat(encode_chat([exchange])) == [exchange]


def test_templates_are_given_arguments_as_objects() -> None:
    turns = chat_turns([read_message(WIRE[1])])
    assert turns[0]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    odd = Message("assistant", "", (ToolCall("", "look", "{a"),))
    assert chat_turns([odd])[0]["tool_calls"] == [{"type": "function", "function": {"name": "look", "arguments": "{a"}}]


@pytest.mark.parametrize("field", ["tool_calls", "toolCalls", "function_call"])
def test_each_spelling_of_a_tool_call_is_read(field: str) -> None:
    function = {"name": "look", "arguments": {"a": 1}}
    value = function if field == "function_call" else [{"id": "c1", "function": function}]
    (call,) = read_message({"role": "assistant", "content": None, field: value}).tool_calls
    assert (call.name, call.arguments) == ("look", '{"a":1}')


def test_arguments_that_are_nested_too_deep_are_the_text_that_they_are() -> None:
    deep = Message("assistant", "", (ToolCall("c1", "look", "[" * 5_000),))
    assert chat_turns([deep])[0]["tool_calls"][0]["function"]["arguments"] == "[" * 5_000
    answer = SimpleNamespace(messages=[], response="", tool_calls=deep.tool_calls, reasoning=None)
    assert all(form.answer(answer) for form in FORMS)
