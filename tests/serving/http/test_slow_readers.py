"""Clients that do not read, leave early or ask again: places come back, connections end, and one answer counts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from babylon_assets.domain.joining import join_calls
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.serving.http import streaming
from tests.domain.rows import record, step
from tests.gateways import RunningGateway, wait_for

Gateways = Callable[..., RunningGateway]
#: Answers of several megabytes: more than the sockets between client and gateway hold.
LONG = {
    "model": "base",
    "messages": [{"role": "user", "content": "A yes 40"}],
    "max_tokens": 200,
    "n": 16,
    "logprobs": True,
    "top_logprobs": 20,
    "stream": True,
    "seed": 1,
}


def ask(gateway: RunningGateway, **changes: Any) -> socket.socket:
    """A client that has asked, and reads nothing unless it is made to."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(10)
    client.connect(("127.0.0.1", gateway.port))
    body = json.dumps({**LONG, **changes}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def taken(gateway: RunningGateway) -> int:
    """Places that are held by whoever asks without a key."""
    return gateway.parts.access.held("anybody")


def test_places_come_back_when_sampling_ends_though_nobody_reads(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_key_concurrency=32)
    limits = gateway.gateway.connections.limits
    gateway.gateway.connections.limits = replace(limits, write_seconds=4)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(ask(gateway))
        wait_for(lambda: gateway.parts.source.load()[0] > 0)
        wait_for(lambda: gateway.parts.source.load() == (0, 0))
        wait_for(lambda: taken(gateway) == 0, 3.5)
        assert len(gateway.gateway.connections) == 2  # they have still not read
        reply = httpx.post(f"{gateway.url}/chat/completions", json={**LONG, "stream": False, "max_tokens": 1})
        assert reply.status_code == 200
        recorder = gateway.parts.recorder
        assert recorder is not None and recorder.flush(20)
        assert recorder.written == 3 * 16  # also those that nobody read
        wait_for(lambda: len(gateway.gateway.connections) == 0, 10)


def test_who_reads_a_little_at_a_time_is_cut_off(
    gateway_with: Gateways, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "READ_SECONDS", 0.5)
    gateway = gateway_with()
    with ask(gateway) as client:
        wait_for(lambda: gateway.parts.source.load()[0] > 0)
        wait_for(lambda: gateway.parts.source.load() == (0, 0))
        started = time.monotonic()
        while "did not read its stream" not in caplog.text:
            assert client.recv(1000)
            assert time.monotonic() < started + 10
            time.sleep(0.05)
    wait_for(lambda: len(gateway.gateway.connections) == 0, 5)


def test_who_leaves_while_waiting_for_a_place_gives_it_back(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_batch=1, gateway_answer_tokens=4000)
    only: dict[str, Any] = {"n": 1, "logprobs": False, "top_logprobs": None, "temperature": 0}
    with ask(gateway, max_tokens=4000, **only):
        wait_for(lambda: gateway.parts.source.load()[0] == 1)
        waiting = [ask(gateway, max_tokens=10, **only) for _ in range(5)]
        wait_for(lambda: taken(gateway) == 6)
        for client in waiting:
            client.close()
        wait_for(lambda: taken(gateway) == 1, 2)
        assert gateway.parts.source.load()[0] == 1  # the first is answered still
    wait_for(lambda: taken(gateway) == 0, 5)


def test_an_answer_that_was_lost_and_asked_for_again_is_one_answer(gateway_with: Gateways, database: Database) -> None:
    """Of a live episode's questions one is answered to nobody, one is left while it is answered; both are asked again.

    Which answer the agent acted on is known of neither to the game: it keeps no calls of live agents.
    """
    gateway, began = gateway_with(gateway_answer_tokens=4000), datetime.now(UTC)
    recorder, load = gateway.parts.recorder, gateway.parts.source.load
    assert recorder is not None

    def question(number: int, **changes: Any) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": f"A yes 4{number}"}], "user": "a1", "max_tokens": 2, "n": 1}
        return {**asked, "stream": False, "logprobs": False, "top_logprobs": None, **changes}

    with ask(gateway, **question(3)):
        wait_for(lambda: recorder.taken == 1)
    with ask(gateway, **question(5, max_tokens=4000, temperature=0, stop=["never said"])):
        wait_for(lambda: load() == (1, 0))
    wait_for(lambda: load() == (0, 0))
    body = {"model": "base"}
    replies = [httpx.post(f"{gateway.url}/chat/completions", json=body | question(n), timeout=30) for n in (3, 4, 5)]
    assert recorder.flush(20)
    query = "SELECT call_id FROM babylon_training.inference_calls"
    with database.connect() as conn:
        calls = calls_by_id(conn, [name for (name,) in conn.execute(query)])
    made = int(began.timestamp() * 1000)
    steps = [step(number, llmCalls=[], timestamp=made + number) for number in range(3)]
    episode = record(steps, agent_id="a1", start_time=began, end_time=datetime.now(UTC))
    joined = join_calls([episode], calls)
    assert len(calls) == 4
    assert [sample.raw.call_id for sample in joined.samples] == [reply.json()["id"] for reply in replies]
    assert (joined.counts["calls_repeated"], joined.counts["calls_ambiguous"]) == (1, 0)
