"""What a request's messages may hold: half a character costs a character, calls of tools are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from babylon_assets.domain.trajectories import ToolCall
from babylon_assets.serving.answers import Answer
from babylon_assets.serving.http.forms import CHAT, FORMS
from babylon_assets.serving.http.forms.form import ReplyContext
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


@pytest.mark.parametrize("path", FORMS)
def test_a_body_that_is_nested_too_deep_is_refused_in_every_protocol(path: str) -> None:
    given = b'"model": "m", "messages": [{"role": "user", "content": "A"}], "input": "A", "prompt": "A"'
    with pytest.raises(ApiError) as refused:
        FORMS[path].read(b'{%s, "max_tokens": 2, "x": %s}' % (given, b"[" * 5_000 + b"]" * 5_000))
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "</tool_call>", "", "a" * 257])
def test_a_tool_has_a_name_that_prompts_and_calls_can_hold(name: str) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "A"}], "tools": [{"function": {"name": name}}]}
    with pytest.raises(ApiError) as refused:
        CHAT.read(json.dumps(asked).encode())
    assert (refused.value.status, refused.value.param) == (400, "tools")


def test_arguments_that_are_nested_too_deep_are_no_object() -> None:
    request = CHAT.read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "A"}]}).encode())
    call = ToolCall("c1", "look", "[" * 5_000)
    answer = Answer("", "tool_calls", None, None, None, None, 1, 1, content="", tool_calls=(call,))
    body = json.loads(FORMS["/v1/messages"].reply(ReplyContext(request, "msg_1", 0, "m@0", 1), [answer]))
    assert body["content"] == [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]


@pytest.mark.parametrize(
    ("path", "given", "names"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "A", "annotations": [1]}],
                "stream_options": {"include_usge": True, "include_usage": True},
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"x": 1}, "strikt": True}},
                "tools": [
                    {"type": "function", "function": {"name": name, "paramaters": {}, "parametres": {"type": "object"}}}
                    for name in ("buy", "sell")
                ],
            },
            ("response_format.json_schema.strikt", "stream_options.include_usge", "tools.function.parametres"),
        ),
        (
            "/v1/messages",
            {
                "messages": [{"role": "user", "content": "A"}],
                "max_tokens": 3,
                "thinking_": 1,
                "metadata": {"user": "u"},
            },
            ("metadata.user", "thinking_"),
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": "A", "x": 1}], "text": {"vrbosity": "low"}},
            ("text.vrbosity",),
        ),
    ],
)
def test_a_misspelled_name_within_an_object_is_told(path: str, given: dict[str, Any], names: tuple[str, ...]) -> None:
    assert FORMS[path].read(json.dumps({"model": "m", **given}).encode()).ignored == names


def test_many_objects_of_a_request_cost_no_more_than_the_first() -> None:
    tools = b", ".join([b'{"function": {"name": "a", "x": 1}, "y": 2}'] * 20_000)
    with pytest.raises(ApiError) as refused:
        CHAT.read(b'{"model": "m", "messages": [{"role": "user", "content": "A"}], "tools": [%s]}' % tools)
    assert refused.value.param == "tools"
