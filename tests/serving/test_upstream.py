"""A gateway in front of another: what the server behind it gives is recorded, what it does not give is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from babylon_assets.serving.upstream import Kind, Upstream
from babylon_assets.settings import Settings
from babylon_assets.store.calls import InferenceCall, calls_by_id
from babylon_assets.store.database import Database
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


def test_a_stream_and_several_answers_pass_through(in_front: Any) -> None:
    front, _, database = in_front("vllm")
    reply, _ = ask(front, database, n=3)
    assert len({choice["message"]["content"] for choice in reply["choices"]}) == 3
    body = {"model": "babylon-agent", "messages": ASKED, "seed": 3, "max_tokens": 10, "stream": True}
    streamed = httpx.post(f"{front.url}/chat/completions", json=body, timeout=60).text
    assert streamed.endswith("data: [DONE]\n\n")
    assert reply["choices"][0]["message"]["content"][:3] in streamed


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
    front.parts.limits = type(front.parts.limits)(front.parts.limits.body, 8000)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{front.url}/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.7))
    wait_for(lambda: front.parts.source.load() == (0, 0), 5)
    wait_for(lambda: behind.parts.source.load() == (0, 0), 5)
