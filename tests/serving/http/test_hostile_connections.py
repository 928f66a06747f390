"""Clients that mean harm, played on real sockets: what each costs is bounded, and the others are answered."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateways import RunningGateway, wait_for

Gateways = Callable[..., RunningGateway]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BODY = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 2}


@pytest.fixture
def gateway(gateway_with: Gateways) -> RunningGateway:
    return gateway_with(gateway_address_connections=32)


def connect(gateway: RunningGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=10)


def hurry(gateway: RunningGateway, **seconds: Any) -> None:
    """Shorten the deadlines of connections that are made from now on."""
    gateway.gateway.connections.limits = replace(gateway.gateway.connections.limits, **seconds)


def send_until_refused(client: socket.socket, piece: bytes, most: int) -> tuple[int, bytes]:
    """Send a piece again and again; gives how many bytes went out before an answer came, and the answer."""
    sent = 0
    client.setblocking(False)
    while sent < most:
        try:
            sent += client.send(piece)
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            break
        try:
            return sent, client.recv(65_536)
        except BlockingIOError:
            continue
    return sent, b""


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def assert_answers(gateway: RunningGateway) -> None:
    reply = httpx.post(f"{gateway.url}/chat/completions", json=BODY, timeout=30)
    assert reply.status_code == 200, reply.text


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


ENDLESS = [
    (HEAD, b"X-More: " + b"y" * 1000 + b"\r\n", 431),
    (HEAD + b"X-Long: ", b"y" * 65_536, 431),
    (b"GET /", b"y" * 65_536, 431),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"y" * 65_536 + b"\r\n", 413),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Trailer: " + b"y" * 1000 + b"\r\n", 431),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"y" * 65_536, 413),
    (HEAD + b"Content-Length: 999999999\r\n\r\n", b"y" * 65_536, 413),
]


def test_what_never_ends_is_refused_before_it_is_held(gateway: RunningGateway) -> None:
    for start, piece, status in ENDLESS:
        before, refused = memory(), gateway.gateway.connections.refused[status]
        with connect(gateway) as client:
            client.sendall(start)
            sent, answer = send_until_refused(client, piece, 40_000_000)
        assert status_of(answer) == status, (start, piece[:20])
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "refused"
        assert sent < 12_000_000  # most of it waits in the sockets
        assert memory() - before < 30_000_000
        assert gateway.gateway.connections.refused[status] == refused + 1
    assert_answers(gateway)


def test_a_body_that_does_not_say_its_length_is_as_bounded(gateway: RunningGateway) -> None:
    size = gateway.gateway.connections.limits.body + 1
    with connect(gateway) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, b"y" * size))
        assert status_of(client.recv(65_536)) == 413


def test_a_refused_client_that_sends_on_is_cut_off(gateway: RunningGateway) -> None:
    with connect(gateway) as client:
        client.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < started + 10:
                client.sendall(b"y" * 1000)
                time.sleep(0.01)
    wait_for(lambda: len(gateway.gateway.connections) == 0, 5)


def test_a_request_that_does_not_come_is_not_waited_for(gateway: RunningGateway) -> None:
    hurry(gateway, head_seconds=0.5, body_seconds=0.5)
    pieces = (b"", b"GET / HTTP/1.1\r\nX: ", HEAD + b"Content-Length: 100\r\n\r\n{", b"\r\n")
    with ExitStack() as held:
        clients = [held.enter_context(connect(gateway)) for _ in pieces]
        for client, piece in zip(clients, pieces, strict=True):
            client.sendall(piece)
        assert [status_of(client.recv(65_536)) for client in clients] == [408] * 4
    wait_for(lambda: len(gateway.gateway.connections) == 0, 5)


def test_half_requests_make_room_for_whole_ones(gateway: RunningGateway) -> None:
    with ExitStack() as held:
        halves = [held.enter_context(connect(gateway)) for _ in range(100)]
        for number, half in enumerate(halves):
            half.sendall((b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{")[number % 3])
        for _ in range(5):
            assert_answers(gateway)
        wait_for(lambda: len(gateway.gateway.connections) <= 32, 5)
        metrics = httpx.get(f"{gateway.root}/metrics").text
        assert 'babylon_gateway_connections_refused_total{status="408"}' in metrics
        assert "process_open_fds" in metrics and "process_max_fds" in metrics


def test_connections_that_are_all_answered_leave_no_room_for_more(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_address_connections=2, gateway_answer_tokens=4000)
    slow: dict[str, Any] = {**BODY, "max_tokens": 4000, "temperature": 0}
    with ExitStack() as held:
        for _ in range(2):
            client = held.enter_context(connect(gateway))
            body = json.dumps(slow).encode()
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for(lambda: gateway.parts.source.load()[0] == 2)
        with connect(gateway) as refused:
            assert status_of(refused.recv(65_536)) == 503
    wait_for(lambda: gateway.parts.source.load() == (0, 0), 5)


def test_requests_that_are_sent_ahead_are_bounded(gateway: RunningGateway) -> None:
    body = json.dumps({**BODY, "max_tokens": 200}).encode()
    with connect(gateway) as client:
        ahead = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        with pytest.raises(OSError):  # what was asked first is broken off as well
            client.sendall(ahead * 20)
            assert not client.recv(65_536)
            raise ConnectionError("closed")
    assert_answers(gateway)
