"""Every protocol is answered, streamed and recorded alike: chat completions, completions, responses and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from babylon_assets.domain.trajectories import Message, ToolCall
from babylon_assets.ledger.inference_calls import InferenceCall
from babylon_assets.serving.answers import Answer
from babylon_assets.serving.http.forms import FORMS
from babylon_assets.serving.http.forms.form import ReplyContext
from babylon_assets.serving.http.protocol import ChatRequest, Token
from tests.gateways import RunningGateway

CALLER = {"X-Babylon-Agent": "anna", "X-Babylon-Trajectory": "t-1", "X-Babylon-Step": "2"}
ANSWERS_OF: dict[str, Callable[[Any], str]] = {
    "completions": lambda body: body["choices"][0]["text"],
    "chat/completions": lambda body: body["choices"][0]["message"]["content"],
    "messages": lambda body: body["content"][0]["text"],
    "responses": lambda body: body["output"][0]["content"][0]["text"],
}
LIMIT = {"responses": "max_output_tokens"}
#: A tool whose calls a model that has learned nothing can finish.
LOOK = {
    "name": "look",
    "description": "Looks a market up.",
    "parameters": {
        "type": "object",
        "properties": {"market": {"enum": ["A", "B"]}, "sure": {"type": "boolean"}},
        "required": ["market", "sure"],
        "additionalProperties": False,
    },
}
#: The same in OpenAI's older form and in today's.
BOTH = {"functions": [LOOK], "tools": [{"type": "function", "function": LOOK}]}


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    return shared_gateway


def asked(path: str, text: str = "A yes 40", **more: Any) -> dict[str, Any]:
    """A question in the protocol of a path."""
    body: dict[str, Any] = {"model": "any", LIMIT.get(path, "max_tokens"): 12, "temperature": 0, **more}
    if path == "completions":
        return body | {"prompt": text}
    return body | {"input" if path == "responses" else "messages": [{"role": "user", "content": text}]}


def post(gateway: RunningGateway, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{gateway.url}/{path}", json=body, headers=CALLER, timeout=60)


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def recorded(gateway: RunningGateway, call_id: str) -> InferenceCall:
    return gateway.recorded(call_id)[0]


def streamed_text(path: str, given: list[dict[str, Any]]) -> tuple[str, str]:
    """The id and the text of a streamed answer."""
    if path == "messages":
        assert [each["type"] for each in given][-3:] == ["content_block_stop", "message_delta", "message_stop"]
        return given[0]["message"]["id"], "".join(each.get("delta", {}).get("text", "") for each in given)
    if path == "responses":
        assert [each["sequence_number"] for each in given] == list(range(len(given)))
        text = "".join(each["delta"] for each in given if each["type"] == "response.output_text.delta")
        assert given[-1]["response"]["output"][0]["content"][0]["text"] == text
        return given[0]["response"]["id"], text
    choices = [choice for each in given for choice in each["choices"]]
    texts = [choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices]
    return given[0]["id"], "".join(texts)


@pytest.mark.parametrize("path", ANSWERS_OF)
def test_each_protocol_gets_the_same_answer_whole_and_streamed(gateway: RunningGateway, path: str) -> None:
    body = post(gateway, path, asked(path)).json()
    text, call = ANSWERS_OF[path](body), recorded(gateway, body["id"])
    chat = post(gateway, "chat/completions", asked("chat/completions")).json()
    assert text == call.response == chat["choices"][0]["message"]["content"]
    assert (list(call.messages), call.policy) == ([Message("user", "A yes 40")], "babylon-agent@0")
    assert (call.agent_id, call.trajectory_id, call.step) == ("anna", "t-1", 2)
    assert call.sampling is not None and (call.sampling["model"], call.sampling["max_tokens"]) == ("any", 12)
    assert len(call.token_ids or ()) == len(call.logprobs or ()) > 0
    call_id, streamed = streamed_text(path, events(post(gateway, path, asked(path, stream=True))))
    assert streamed == text
    assert recorded(gateway, call_id).token_ids == call.token_ids


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": [1, 2]}, "prompt"),
        ("completions", {"prompt": "A", "echo": True}, "echo"),
        ("responses", {"input": "A", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ("responses", {"input": [{"role": "wizard", "content": "A"}]}, "messages"),
        ("chat/completions", {"messages": [], "tools": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user"}], "tool_choice": "required"}, "tool_choice"),
        ("chat/completions", {"messages": [{"role": "user"}], "function_call": {"name": "look"}}, "function_call"),
        ("chat/completions", {"messages": [{"role": "user"}], **BOTH}, "functions"),
        ("chat/completions", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ],
)
def test_what_a_protocol_cannot_do_is_refused_by_name(
    gateway: RunningGateway, path: str, body: dict[str, Any], param: str
) -> None:
    reply = post(gateway, path, {"model": "any", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_a_refusal_of_messages_has_anthropics_form(gateway: RunningGateway) -> None:
    reply = post(gateway, "messages", {"model": "any", "messages": [{"role": "user", "content": "A"}]})
    error = {"type": "invalid_request_error", "message": "Object missing required field `max_tokens`"}
    assert (reply.status_code, reply.json()) == (400, {"type": "error", "error": error})


def test_a_system_and_results_of_tools_are_one_conversation_in_every_protocol(gateway: RunningGateway) -> None:
    call: dict[str, Any] = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"market":"A","sure":true}'},
    }
    chat = [
        {"role": "system", "content": "Trade."},
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "yes 40"},
    ]
    blocks = [
        {"role": "user", "content": [{"type": "text", "text": "A?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"market": "A", "sure": True}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "yes 40"}]},
    ]
    items = [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": call["function"]["arguments"]},
        {"type": "function_call_output", "call_id": "c1", "output": "yes 40"},
    ]
    bodies = {
        "chat/completions": {"messages": chat, "max_tokens": 4},
        "messages": {"system": "Trade.", "messages": blocks, "max_tokens": 4},
        "responses": {"instructions": "Trade.", "input": items, "max_output_tokens": 4},
    }
    expected = [
        Message("system", "Trade."),
        Message("user", "A?"),
        Message("assistant", "I look.", (ToolCall("c1", "look", '{"market":"A","sure":true}'),)),
        Message("tool", "yes 40", tool_call_id="c1"),
    ]
    prompts = []
    for path, body in bodies.items():
        reply = post(gateway, path, {"model": "any", "temperature": 0, **body})
        assert reply.status_code == 200, reply.text
        kept = recorded(gateway, reply.json()["id"])
        assert list(kept.messages) == expected
        prompts.append(kept.prompt_token_ids)
    assert prompts[0] == prompts[1] == prompts[2]


def called(path: str, body: dict[str, Any]) -> ToolCall:
    """The one tool call of a reply."""
    if path == "messages":
        (block,) = body["content"]
        assert body["stop_reason"] == "tool_use"
        return ToolCall(block["id"], block["name"], json.dumps(block["input"]))
    if path == "responses":
        (item,) = body["output"]
        return ToolCall(item["call_id"], item["name"], item["arguments"])
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (call,) = choice["message"]["tool_calls"]
    return ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])


def offered(path: str) -> dict[str, Any]:
    """The tool and that it has to be called, in the protocol of a path."""
    if path == "messages":
        tool = {"name": "look", "description": LOOK["description"], "input_schema": LOOK["parameters"]}
        return {"tools": [tool], "tool_choice": {"type": "any"}}
    if path == "responses":
        return {"tools": [{"type": "function", **LOOK}], "tool_choice": {"type": "function", "name": "look"}}
    return {"tools": [{"type": "function", "function": LOOK}], "tool_choice": "required"}


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
def test_a_tool_is_called_in_every_protocol_and_the_call_recorded(gateway: RunningGateway, path: str) -> None:
    question = asked(path, **offered(path)) | {LIMIT.get(path, "max_tokens"): 200}
    reply = post(gateway, path, question)
    assert reply.status_code == 200, reply.text
    call = called(path, reply.json())
    assert call.name == "look"
    arguments = json.loads(call.arguments)
    assert arguments["market"] in ("A", "B") and isinstance(arguments["sure"], bool)
    kept = recorded(gateway, reply.json()["id"])
    assert (
        kept.response.startswith('<tool_call>\n{"name": "look", "arguments": {') and kept.finish_reason == "tool_calls"
    )
    assert [(each.name, json.loads(each.arguments)) for each in kept.tool_calls] == [("look", arguments)]
    assert json.loads(kept.tools or "") == [{"type": "function", "function": LOOK}]
    assert kept.sampling is not None and kept.sampling["tool_choice"] in ("required", "look")

    streamed = events(post(gateway, path, question | {"stream": True}))
    pieces = {
        "messages": [each["delta"]["partial_json"] for each in streamed if "partial_json" in each.get("delta", {})],
        "responses": [each["arguments"] for each in streamed if each["type"].endswith("arguments.done")]
        if path == "responses"
        else [],
        "chat/completions": [
            part["function"]["arguments"]
            for each in streamed
            for choice in each.get("choices", ())
            for part in choice["delta"].get("tool_calls", ())
        ],
    }
    assert [json.loads(piece) for piece in pieces[path]] == [arguments]


def test_functions_are_answered_in_their_form_and_recorded_as_tools_are(gateway: RunningGateway) -> None:
    path, question = "chat/completions", asked("chat/completions", max_tokens=200)
    older = question | {"functions": [LOOK], "function_call": {"name": "look"}}
    reply = post(gateway, path, older).json()
    (choice,) = reply["choices"]
    function, kept = choice["message"]["function_call"], recorded(gateway, reply["id"])
    assert (choice["finish_reason"], choice["message"]["content"]) == ("function_call", None)
    assert "tool_calls" not in choice["message"]
    today = post(gateway, path, question | offered(path)).json()
    same = recorded(gateway, today["id"])
    assert (kept.response, kept.tools, kept.finish_reason) == (same.response, same.tools, same.finish_reason)
    assert [(call.name, call.arguments) for call in kept.tool_calls] == [(function["name"], function["arguments"])]

    streamed = [choice for each in events(post(gateway, path, older | {"stream": True})) for choice in each["choices"]]
    assert [choice["delta"]["function_call"] for choice in streamed if "function_call" in choice["delta"]] == [function]
    assert streamed[-1]["finish_reason"] == "function_call"

    result = {"role": "function", "name": "look", "content": "yes 40"}
    told = [*question["messages"], {"role": "assistant", "content": None, "function_call": function}, result]
    short = question | {"messages": told, "max_tokens": 4}
    asked_in_both = [short | {"functions": [LOOK]}, short | {"tools": offered(path)["tools"]}]
    replies = [post(gateway, path, body).json() for body in asked_in_both]
    assert replies[0]["choices"][0]["finish_reason"] in ("length", "stop")
    older_prompt, prompt = (recorded(gateway, each["id"]).prompt_token_ids for each in replies)
    assert older_prompt == prompt


def test_parts_of_characters_are_told_apart_in_completions() -> None:
    parts = [Token("\ufffd", -1.0, [0xE2], []), Token("\ufffd", -2.0, [0xF0], []), Token("a", -3.0, [0x61], [])]
    token = Token("\ufffd", -1.0, [0xE2], parts)
    answer = Answer("\ufffd", "length", None, None, None, [token], 1, 1)
    context = ReplyContext(ChatRequest("any", []), "cmpl-1", 0, "any", 1)
    [choice] = json.loads(FORMS["/v1/completions"].reply(context, [answer]))["choices"]
    assert choice["logprobs"]["tokens"] == ["bytes:\\xe2"]
    assert choice["logprobs"]["top_logprobs"] == [{"bytes:\\xe2": -1.0, "bytes:\\xf0": -2.0, "a": -3.0}]
