"""Asking a server behind the gateway: what it refuses, what is asked once more, and where a key never goes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from babylon_assets.config import network
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving import upstream_client
from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.upstream import Upstream
from babylon_assets.serving.upstream_client import UpstreamClient

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
                return await client.read_reply(response)
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
        (b'{"error":{"message":"too long","param":null,"code":422}}', {}, ("too long", None, None, None)),
        (b"{}", {"retry-after": "9" * 5000}, ("the server behind the gateway refuses this (422)", None, None, None)),
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


def test_a_login_that_a_file_names_for_the_server_is_not_ours(
    behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(network, "is_loopback", lambda _url: False)  # as any other machine is treated
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert asked(behind, (200, {}, b"{}")) == b"{}"
    assert behind.keys == ["Bearer secret"]


def test_a_proxy_is_honoured_for_its_scheme_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:2")
    monkeypatch.setenv("no_proxy", "near.example")
    urls = ("http://far.example/v1", "https://far.example/v1", "https://near.example/v1", "http://127.0.0.5:3/v1")
    assert [network.proxy_for(url) for url in urls] == ["http://127.0.0.1:1", "http://127.0.0.1:2", None, None]
    monkeypatch.setenv("all_proxy", "socks5://user:secret@127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"far\.example cannot be asked .* set HTTP_PROXY") as told:
        network.proxy_for(urls[0])
    assert "secret" not in str(told.value)
    assert network.proxy_for(urls[2]) is None


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What keeps coming and is nothing of an answer: headers, hints, blanks, comments, chunks without an end or a choice.
ENDLESS: list[tuple[bytes, bytes, float, str]] = [
    (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n", 0.02, "in time"),
    (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.02, "in time"),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02, "in time"),
    (HEAD, b"1\r\na\r\n", 0.02, "in time"),
    (HEAD, b"1\r\n\n\r\n", 0.02, "in time"),
    (HEAD, b"8\r\n: wait\n\n\r\n", 0.02, "in time"),
    (HEAD, b'10\r\ndata: {"id":1}\n\n\r\n', 0.02, "in time"),
    (HEAD + b"1;", b"a", 0.02, "in time"),
    (HEAD + b"0\r\n", b"X: a\r\n", 0.02, "in time"),
    (HEAD, b"4000\r\n" + b"a" * 0x4000 + b"\r\n", 0.0, "too large"),
    (HEAD, b"4000\r\n" + b"data: ab\n\n" * 0x666 + b":\n\n\n" + b"\r\n", 0.0, "too large"),
]


async def saying(head: bytes, pieces: Iterable[bytes], pause: float) -> tuple[asyncio.Server, str]:
    """A server that says the same to everybody, with pauses in between, and its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize(("head", "piece", "pause", "told"), ENDLESS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes, pause: float, told: str, stream: bool
) -> None:
    monkeypatch.setattr(upstream_client, "MOST_REPLY_BYTES", 2**18)
    monkeypatch.setattr(upstream_client, "MOST_LINE_BYTES", 2**16)

    async def ask() -> None:
        server, url = await saying(head, [piece] * 400, pause)
        client = UpstreamClient(url, "any", seconds=0.1 if pause else 0.5)
        try:
            async with asyncio.timeout(10), client.ask({"model": "any"}) as response:
                if not stream:
                    await client.read_reply(response)
                async for _ in client.read_lines(response, client.patience()):
                    pass
        finally:
            await client.close()
            server.close()

    with pytest.raises(ApiError, match=told):
        asyncio.run(ask())


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EMPTY: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": ""}}]},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": []}, "logprobs": {"content": []}}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}},
]
QUESTION = Question(
    policy=Target("base", 0),
    messages=[Message("user", "A yes 40")],
    seeds=[1],
    max_tokens=8,
    temperature=1.0,
    top_p=1.0,
    stop=(),
    top_logprobs=None,
)


def streamed(*chunks: dict[str, Any], pause: float, seconds: float) -> tuple[str, tuple[int, int]]:
    """What a stream of these chunks comes to, and how many places are in use afterwards."""

    async def ask() -> tuple[str, tuple[int, int]]:
        events = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        server, url = await saying(STREAM, events, pause)
        source = Upstream(url, "any", "openai", "base", seconds=seconds, most=1)
        try:
            async with asyncio.timeout(10):
                text = "".join([piece.text async for piece in source.pieces(QUESTION)])
        except ApiError as error:
            text = str(error)
        finally:
            await source.end()
            server.close()
        return text, source.load()

    return asyncio.run(ask())


@pytest.mark.parametrize("chunk", EMPTY)
def test_chunks_without_an_answer_keep_no_place(chunk: dict[str, Any]) -> None:
    told, load = streamed(*[chunk] * 400, pause=0.02, seconds=0.1)
    assert (told, load) == ("the server behind the gateway did not answer in time", (0, 0))


def test_an_answer_that_comes_slowly_is_waited_for() -> None:
    parts = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in "BUY A"]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert streamed(*parts, end, pause=0.1, seconds=0.4) == ("BUY A", (0, 0))


def test_lines_end_as_events_may_end_them_and_nowhere_else() -> None:
    async def pieces() -> Any:
        for piece in (b"a\r", b"\nb\rc\n\n", "d\u2028é".encode()[:-1], "é".encode()[1:], b"\ne"):
            yield piece

    async def read() -> list[str]:
        response: Any = SimpleNamespace(content=SimpleNamespace(iter_any=pieces))
        client = UpstreamClient("http://127.0.0.1:1/v1", "any", seconds=5)
        return [line async for line in client.read_lines(response, client.patience())]

    assert asyncio.run(read()) == ["a", "b", "c", "", "d\u2028é", "e"]
