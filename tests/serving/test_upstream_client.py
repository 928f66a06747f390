"""Asking a server behind the gateway: what it refuses, what is asked once more, and where a key never goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from babylon_assets.serving import upstream_client
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.upstream_client import UpstreamClient, read_lines

Reply = tuple[int, dict[str, str], bytes]


class Behind:
    """A server that gives these replies, one after the other, and notes the keys that it was sent."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.keys: list[str | None] = []
        behind = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                behind.keys.append(self.headers["authorization"])
                status, headers, body = behind.replies.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture(scope="module")
def running() -> Iterator[Behind]:
    behind = Behind()
    yield behind
    behind.server.shutdown()
    behind.server.server_close()


@pytest.fixture
def behind(running: Behind, monkeypatch: pytest.MonkeyPatch) -> Behind:
    monkeypatch.setattr(upstream_client, "SECONDS_BETWEEN", 0.0)
    running.replies.clear()
    running.keys.clear()
    return running


def asked(behind: Behind, *replies: Reply) -> bytes:
    behind.replies += replies

    async def ask() -> bytes:
        client = UpstreamClient(behind.url, "secret", seconds=5)
        try:
            async with client.ask({"model": "any"}) as response:
                return await response.read()
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_server_that_sends_us_elsewhere_is_not_followed(behind: Behind) -> None:
    with pytest.raises(ApiError, match="answered 307") as told:
        asked(behind, (307, {"location": f"{behind.url}/elsewhere"}, b""))
    assert (told.value.status, behind.keys) == (502, ["Bearer secret"])


def test_a_server_that_was_passing_is_asked_once_more(behind: Behind) -> None:
    assert asked(behind, (503, {}, b""), (200, {}, b"{}")) == b"{}"
    with pytest.raises(ApiError, match="answered 503"):
        asked(behind, (503, {}, b""), (503, {}, b""))
    assert len(behind.keys) == 4


@pytest.mark.parametrize(
    ("body", "headers", "told"),
    [
        (b'{"error":{"message":"too long","param":"messages","code":"c"}}', {}, ("too long", "messages", "c", None)),
        (b"<html>", {}, ("the server behind the gateway refuses this (422)", None, None, None)),
        (b'{"error":"no"}', {"retry-after": "7"}, ("the server behind the gateway refuses this (422)", None, None, 7)),
    ],
)
def test_a_refusal_is_told_as_the_server_said_it(
    behind: Behind, body: bytes, headers: dict[str, str], told: tuple[Any, ...]
) -> None:
    with pytest.raises(ApiError) as refused:
        asked(behind, (422, headers, body))
    error = refused.value
    assert (error.status, str(error), error.param, error.code, error.retry_after) == (422, *told)


def test_our_key_being_refused_is_not_the_clients_fault(behind: Behind) -> None:
    with pytest.raises(ApiError, match="answered 401") as told:
        asked(behind, (401, {}, b'{"error":{"message":"bad key secret"}}'))
    assert told.value.status == 502


def test_lines_end_as_events_may_end_them_and_nowhere_else() -> None:
    async def pieces() -> Any:
        for piece in (b"a\r", b"\nb\rc\n\n", "d\u2028é".encode()[:-1], "é".encode()[1:], b"\ne"):
            yield piece

    async def read() -> list[str]:
        response: Any = SimpleNamespace(content=SimpleNamespace(iter_any=pieces))
        return [line async for line in read_lines(response)]

    assert asyncio.run(read()) == ["a", "b", "c", "", "d\u2028é", "e"]
