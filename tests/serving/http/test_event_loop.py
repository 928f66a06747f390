"""What takes long is not done on the event loop: the threads that read requests and cut texts into tokens are named."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from babylon_assets.domain.chat_turns import read_tools
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.answers import Answer
from babylon_assets.serving.engine import heard_answers, scheduler
from babylon_assets.serving.engine.texts import ChatTokenizer
from babylon_assets.serving.http import accepted_request
from babylon_assets.serving.http.forms.chat_completions import ChatCompletions
from babylon_assets.serving.http.forms.form import ReplyContext
from babylon_assets.serving.http.protocol import ChatRequest
from babylon_assets.serving.long_work import LongWork
from tests.gateways import RunningGateway

Gateways = Callable[..., RunningGateway]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the threads on which texts of more than 10,000 characters are worked on, by what is done."""
    seen: dict[str, list[str]] = {"read": [], "cut": [], "decoded": [], "encoded": []}
    prompt, read, answer = ChatTokenizer.prompt, ChatCompletions.read, heard_answers.whole_answer
    respond = ChatCompletions.reply

    def note(what: str) -> None:
        seen[what].append(threading.current_thread().name.rpartition("_")[0])

    def cut(self: ChatTokenizer, messages: Sequence[Message], tools: Any = None) -> list[int]:
        if sum(len(message.content) for message in messages) > 10_000:
            note("cut")
        return prompt(self, messages, tools)

    def read_request(self: ChatCompletions, body: bytes) -> ChatRequest:
        if len(body) > 90_000:
            note("read")
        return read(self, body)

    def decode(*given: Any, **more: Any) -> Any:
        note("decoded")
        return answer(*given, **more)

    def encode(self: ChatCompletions, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        note("encoded")
        return respond(self, context, answers)

    monkeypatch.setattr(ChatTokenizer, "prompt", cut)
    monkeypatch.setattr(ChatCompletions, "read", read_request)
    for module in (scheduler, heard_answers):
        monkeypatch.setattr(module, "whole_answer", decode)
    monkeypatch.setattr(ChatCompletions, "reply", encode)
    return seen


@pytest.mark.parametrize("stream", [False, True])
def test_long_texts_are_read_and_cut_beside_it(
    gateway_with: Gateways, places: dict[str, list[str]], stream: bool
) -> None:
    gateway = gateway_with()
    for characters, cut in ((900_000, []), (100_000, ["long-work"]), (20_000, ["short-work"])):
        places["cut"].clear()
        messages = [{"role": "user", "content": "A yes 40 " * (characters // 9)}]
        body = {"model": "base", "messages": messages, "stream": stream}
        refused = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert places["cut"] == cut  # nothing is cut that cannot fit
    assert set(places["read"]) == {"short-work"}


def test_long_calls_of_tools_are_cut_beside_it_as_well(gateway_with: Gateways, places: dict[str, list[str]]) -> None:
    gateway, user = gateway_with(), {"role": "user", "content": "A yes 40 " * 1200}
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "A yes 40 " * 6000}}
    for more in ({"tool_calls": [call]}, {"content": "", "reasoning_content": "Hm. " * 13_000}):
        messages = [user, {"role": "assistant", **more}, {"role": "user", "content": "?"}]
        body = {"model": "base", "messages": messages, "max_tokens": 1}
        assert httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=120).status_code in (200, 400)
    assert set(places["cut"]) == {"long-work"}


def test_many_messages_are_refused_by_their_number(gateway_with: Gateways) -> None:
    gateway = gateway_with()
    body = {"model": "base", "messages": [{"role": "user", "content": ""}] * 20_000}
    refused = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


def test_large_answers_are_written_beside_it(gateway_with: Gateways, places: dict[str, list[str]]) -> None:
    gateway = gateway_with()
    messages = [{"role": "user", "content": "A yes 40"}]
    body = {"model": "base", "messages": messages, "n": 8, "max_tokens": 100, "logprobs": True, "top_logprobs": 20}
    reply = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
    assert reply.status_code == 200
    assert set(places["decoded"]) == set(places["encoded"]) == {"short-work"}


def test_tools_of_many_schemas_are_written_out_beside_it(
    gateway_with: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, threads = gateway_with(), set[str]()

    def note(tools: Any) -> str | None:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return read_tools(tools)

    monkeypatch.setattr(accepted_request, "read_tools", note)
    schema = {"type": "object", "properties": {f"field{number}": {"type": "string"} for number in range(4000)}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
    body = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "tools": tools}
    assert httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30).status_code == 400
    assert threads == {"short-work"}


def test_tokens_that_a_long_stop_holds_back_are_made_once(
    gateway_with: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, make, made = gateway_with(), heard_answers._tokens, list[int]()

    def note(generation: Any, start: int, end: int, tokenizer: ChatTokenizer) -> Any:
        made.append(end - start)
        return make(generation, start, end, tokenizer)

    monkeypatch.setattr(heard_answers, "_tokens", note)
    body = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 60, "stream": True}
    likeliest = {"logprobs": True, "top_logprobs": 20, "stop": "x" * 1000}
    assert httpx.post(f"{gateway.url}/chat/completions", json=body | likeliest, timeout=30).status_code == 200
    assert sum(made) <= 60


def test_work_whose_client_has_gone_keeps_its_keys_turn() -> None:
    work, begun, free, done = LongWork(), threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        begun.set()
        free.wait(60)

    async def crowd() -> None:
        gone = asyncio.create_task(work.do("mallory", 2_000, hold))
        await asyncio.to_thread(begun.wait, 60)
        gone.cancel()
        waiting = [asyncio.create_task(work.do("mallory", 2_000, lambda: done.append("mallory"))) for _ in range(3)]
        waiting[0].cancel()
        await work.do("anna", 2_000, lambda: done.append("anna"))
        assert done == ["anna"]
        free.set()
        await asyncio.gather(*waiting[1:])

    asyncio.run(crowd())
    assert done == ["anna", "mallory", "mallory"]


def test_what_is_there_from_the_start_is_not_searched_for_garbage_between_answers(gateway_with: Gateways) -> None:
    gateway = gateway_with()
    assert gc.get_freeze_count() > len(gc.get_objects(generation=2))
    gateway.__exit__()
    assert gc.get_freeze_count() == 0
