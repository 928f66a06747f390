"""A gateway in front of another: what the server behind it gives is recorded, what it does not give is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id
from babylon_assets.serving.upstream import Kind, Upstream
from tests.gateways import RunningGateway, recomputed, wait_for
from tests.servers import Server

ASKED = [{"role": "user", "content": "A yes 40"}]


@pytest.fixture
def in_front(
    gateway_with: Callable[..., RunningGateway], server: Server, migrated: str, tmp_path: Path
) -> Iterator[Callable[[Kind], tuple[RunningGateway, RunningGateway, Database]]]:
    """A gateway with a database of its own before one that has the engine."""
    running: list[RunningGateway] = []
    names: list[str] = []

    def make(kind: Kind) -> tuple[RunningGateway, RunningGateway, Database]:
        behind = gateway_with(gateway_batch=4, gateway_queue=4, gateway_answer_tokens=8000)
        names.append(server.create(migrated))
        database = server.database(names[-1])
        source = Upstream(behind.url, "any", kind, "base", seconds=30, most=8)
        front = RunningGateway(Settings(home=tmp_path / "front"), database, lambda _loop: source)
        running.append(front.__enter__())
        return front, behind, database

    yield make
    for each in running:
        each.__exit__()
    for name in names:
        server.drop(name)


def ask(front: RunningGateway, database: Database, **changes: Any) -> tuple[Any, InferenceCall]:
    body = {"model": "babylon-agent", "messages": ASKED, "seed": 3, "max_tokens": 10, **changes}
    reply = httpx.post(f"{front.url}/chat/completions", json=body, timeout=60).json()
    recorder = front.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        return reply, calls_by_id(conn, [reply["id"]])[reply["id"]]


def test_vllm_is_asked_for_tokens_and_log_probabilities_and_all_is_recorded(in_front: Any, tiny_base: Path) -> None:
    front, _, database = in_front("vllm")
    reply, call = ask(front, database, temperature=0.7, user="a1")
    assert call.response == reply["choices"][0]["message"]["content"]
    assert call.prompt_token_ids and call.token_ids and call.logprobs
    expected = recomputed(tiny_base, None, list(call.prompt_token_ids), list(call.token_ids))
    assert call.logprobs == pytest.approx(expected, abs=1e-4)
    assert (call.policy, call.agent_id, call.seed) == ("babylon-agent@0", "a1", 3)


def test_what_another_server_does_not_give_is_missing_not_made_up(in_front: Any) -> None:
    front, _, database = in_front("openai")
    _, plain = ask(front, database)
    assert (plain.prompt_token_ids, plain.token_ids) == (None, None)
    assert plain.logprobs
    _, cooler = ask(front, database, temperature=0.5)
    assert (cooler.token_ids, cooler.logprobs) == (None, None)
    assert cooler.response


def test_several_answers_pass_through(in_front: Any) -> None:
    front, _, database = in_front("vllm")
    reply, _ = ask(front, database, n=3)
    assert len({choice["message"]["content"] for choice in reply["choices"]}) == 3


def stream(front: RunningGateway, client: openai.OpenAI, **changes: Any) -> openai.Stream[ChatCompletionChunk]:
    asked: Any = {"model": "babylon-agent", "messages": ASKED, "seed": 3, "max_tokens": 40, **changes}
    given: openai.Stream[ChatCompletionChunk] = client.chat.completions.create(**asked, stream=True)
    return given


@pytest.fixture
def client_of() -> Iterator[Callable[[RunningGateway], openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def make(gateway: RunningGateway) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_a_streams_pieces_are_the_servers_and_the_whole_is_recorded(
    in_front: Any, client_of: Any, tiny_base: Path
) -> None:
    front, _, database = in_front("vllm")
    reply, whole = ask(front, database, max_tokens=600, temperature=0.7)
    given = {"temperature": 0.7, "max_tokens": 600, "logprobs": True, "n": 2, "stream_options": {"include_usage": True}}
    chunks = list(stream(front, client_of(front), **given))
    told = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].index == 0]
    texts = [chunk.choices[0].delta.content for chunk in told if chunk.choices[0].delta.content]
    assert "".join(texts) == reply["choices"][0]["message"]["content"] == whole.response
    assert len(texts) > 10
    assert told[-1].choices[0].finish_reason == whole.finish_reason
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [
        chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens  # type: ignore[union-attr]
    ]
    recorder = front.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        calls = calls_by_id(conn, [chunks[0].id, f"{chunks[0].id}-1"])
    assert {*calls} == {chunks[0].id, f"{chunks[0].id}-1"}
    streamed = calls[chunks[0].id]
    assert (streamed.response, streamed.token_ids, streamed.prompt_token_ids) == (
        whole.response,
        whole.token_ids,
        whole.prompt_token_ids,
    )
    assert "stop" in {call.finish_reason for call in calls.values()}  # the end of turn is a token as well
    for call in calls.values():
        assert call.prompt_token_ids and call.token_ids and call.logprobs
        expected = recomputed(tiny_base, None, list(call.prompt_token_ids), list(call.token_ids))
        assert call.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_piece_is_passed_on_while_the_answer_goes_on_behind(in_front: Any, client_of: Any) -> None:
    front, behind, _ = in_front("openai")
    front.parts.answer_tokens = 8000
    with stream(front, client_of(front), max_tokens=8000, temperature=0) as chunks:
        first = next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        assert behind.parts.source.load() == (1, 0)
        assert front.parts.source.load() == (1, 0)
        assert first.model == "babylon-agent@0"
    wait_for(lambda: front.parts.source.load() == (0, 0), 5)
    wait_for(lambda: behind.parts.source.load() == (0, 0), 5)


def test_a_stream_that_breaks_off_is_told_and_not_recorded(in_front: Any, client_of: Any) -> None:
    front, behind, database = in_front("openai")
    front.parts.answer_tokens = 8000
    with stream(front, client_of(front), max_tokens=8000, temperature=0) as chunks:
        next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        for job in set(behind.parts.source._active.values()):
            job.error = RuntimeError("the engine broke")
        with pytest.raises(openai.APIError, match="an error instead of an answer"):
            list(chunks)
    recorder = front.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        assert conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone() == (0,)
    refused = {"messages": [{"role": "user", "content": "A yes 40 " * 3000}]}
    with pytest.raises(openai.BadRequestError) as told:
        stream(front, client_of(front), **refused)
    assert told.value.param == "messages"


def test_the_servers_refusals_are_passed_on_and_its_absence_is_said(in_front: Any) -> None:
    front, behind, _ = in_front("vllm")
    body = {"model": "babylon-agent", "messages": [{"role": "user", "content": "A yes 40 " * 3000}]}
    refused = httpx.post(f"{front.url}/chat/completions", json=body, timeout=60)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    behind.__exit__()
    gone = httpx.post(f"{front.url}/chat/completions", json={**body, "messages": ASKED}, timeout=60)
    assert (gone.status_code, gone.json()["error"]["code"]) == (502, "upstream")


def test_who_leaves_frees_the_place_behind_as_well(in_front: Any) -> None:
    front, behind, _ = in_front("vllm")
    body = {"model": "babylon-agent", "messages": ASKED, "max_tokens": 8000, "temperature": 0}
    front.parts.answer_tokens = 8000
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{front.url}/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.7))
    wait_for(lambda: front.parts.source.load() == (0, 0), 5)
    wait_for(lambda: behind.parts.source.load() == (0, 0), 5)
