"""What a request's messages may hold: half a character costs a character, tools are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from babylon_assets.serving.http.protocol import ApiError, read_request


def request(*messages: dict[str, Any]) -> bytes:
    return json.dumps({"model": "base", "messages": list(messages)}).encode()


def test_a_prompt_that_was_cut_within_a_character_is_answered() -> None:
    asked = read_request(request({"role": "user", "content": "up \ud83d"}))
    assert asked.messages[0].plain().content == "up \ufffd"
    whole = request({"role": "user", "content": "up 🚀"})
    assert read_request(whole).messages[0].plain().content == "up 🚀"
    cut = whole.decode().encode("unicode_escape")[:-3]
    with pytest.raises(ApiError, match="not JSON"):
        read_request(cut)


@pytest.mark.parametrize("tools", [{"tool_calls": [{"id": "c1"}]}, {"function_call": {"name": "buy"}}])
def test_calls_of_tools_are_refused_by_name_and_never_lost(tools: dict[str, Any]) -> None:
    asked = request({"role": "user", "content": "?"}, {"role": "assistant", "content": "wait", **tools})
    with pytest.raises(ApiError) as refused:
        read_request(asked)
    assert (refused.value.status, refused.value.code) == (400, "unsupported_parameter")
    assert refused.value.param == "messages[1].tool_calls"
    empty = request({"role": "assistant", "content": "wait", "tool_calls": [], "function_call": None})
    assert read_request(empty).messages[0].plain().content == "wait"
