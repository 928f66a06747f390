"""What a request's messages may hold: half a character costs a character, calls of tools are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from babylon_assets.serving.http.forms import CHAT
from babylon_assets.serving.http.protocol import ApiError, plain_messages


def request(*messages: dict[str, Any]) -> bytes:
    return json.dumps({"model": "base", "messages": list(messages)}).encode()


def test_a_prompt_that_was_cut_within_a_character_is_answered() -> None:
    asked = CHAT.read(request({"role": "user", "content": "up \ud83d"}))
    assert asked.messages[0].plain().content == "up \ufffd"
    whole = request({"role": "user", "content": "up 🚀"})
    assert CHAT.read(whole).messages[0].plain().content == "up 🚀"
    cut = whole.decode().encode("unicode_escape")[:-3]
    with pytest.raises(ApiError, match="not JSON"):
        CHAT.read(cut)


@pytest.mark.parametrize(
    "tools",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "buy", "arguments": "{}"}}]},
        {"function_call": {"name": "buy"}},
    ],
)
def test_calls_of_tools_are_kept_in_either_form(tools: dict[str, Any]) -> None:
    asked = request({"role": "user", "content": "?"}, {"role": "assistant", "content": "wait", **tools})
    (call,) = plain_messages(CHAT.read(asked))[1].tool_calls
    assert (call.name, call.arguments) == ("buy", "{}")


def test_a_call_of_a_tool_without_a_name_is_refused_by_name_and_never_lost() -> None:
    asked = request({"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [{"id": "c1"}]})
    with pytest.raises(ApiError) as refused:
        plain_messages(CHAT.read(asked))
    assert (refused.value.status, refused.value.param) == (400, "messages[1].tool_calls")
