"""Streams whose clients do not read, or leave early: places come back, and the connection ends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from babylon_assets.serving.http import streaming
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
        wait_for(lambda: taken(gateway) == 0, 2)
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
