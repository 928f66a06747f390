"""Servers behind the gateway that answer 200 and mean something else, and streams with all that streams may hold."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.serving.upstream import Upstream
from tests.gateways import RunningGateway

BODY = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "logprobs": True}
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
TOKEN = {"token": "\ufffd", "logprob": -1.5, "bytes": [240, 159], "top_logprobs": []}


def choice(text: str, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A choice as both a reply and a chunk have it."""
    turn = {"role": "assistant", "content": text}
    return {"index": 0, "message": turn, "delta": turn, "finish_reason": finish_reason, **more}


def data(*choices: dict[str, Any], **more: Any) -> str:
    return json.dumps({**CHUNK, "choices": choices, **more})


Answering = Callable[[str, str], RunningGateway]


@pytest.fixture
def answering(database: Database, tmp_path: Path) -> Iterator[Answering]:
    """A gateway before a server that answers everything with one text, which comes in small pieces."""
    script = ["", ""]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", script[0])
            self.end_headers()
            body = script[1].encode()
            for start in range(0, len(body), 50):
                self.wfile.write(body[start : start + 50])
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    source = Upstream(f"http://127.0.0.1:{server.server_port}/v1", "any", "openai", "base", seconds=10, most=8)
    gateway = RunningGateway(Settings(home=tmp_path / "home"), database, lambda _loop: source)

    def make(kind: str, text: str) -> RunningGateway:
        script[:] = kind, text
        return gateway

    with gateway:
        yield make
    server.shutdown()
    server.server_close()


def recorded(gateway: RunningGateway) -> int:
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.flush(20)
    return recorder.written


NO_ANSWERS: list[tuple[str, str]] = [
    ("text/html", "<html><body>Log in</body></html>"),
    ("application/json", "<html><body>Log in</body></html>"),
    ("application/json", json.dumps({"error": {"message": "out of memory", "code": 500}})),
    ("application/json", json.dumps({"error": "out of memory", "choices": [choice("No", "stop")]})),
    ("application/json", data()),
    ("application/json", json.dumps({"choices": None})),
    ("application/json", json.dumps([1, 2])),
    ("application/json", "null"),
    ("application/json", ""),
    ("application/json", data(choice(7, "stop"))),  # type: ignore[arg-type]
    ("application/json", data(choice("yes", "NUL \0"))),
    ("application/json", data(choice("yes", "stop", token_ids=[2**40]))),
    ("application/json", f'{{"choices": [], "more": {"[" * 5_000}{"]" * 5_000}}}'),
    ("text/event-stream", "data: {broken\n\n"),
    ("text/event-stream", f"data: {json.dumps({'error': {'message': 'out of memory'}})}\n\n"),
    ("text/event-stream", ": nothing\n\n"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_answer_is_the_servers_fault_in_openais_form(
    answering: Answering, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, text in NO_ANSWERS:
        gateway = answering(kind, text)
        reply = httpx.post(f"{gateway.url}/chat/completions", json={**BODY, "stream": stream}, timeout=30)
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream"), text
        assert reply.json()["error"]["type"] == "api_error"
    assert recorded(gateway) == 0
    assert "Traceback" not in caplog.text


STREAM = [
    ": hello",
    "",
    "id: 1",
    "event: message",
    f"data: {data(choice(''))}",
    "",
    "retry: 1000",
    "",
    ": a comment keeps the connection open",
    "",
    "id: 2",
    "",
    "event: ping",
    "data:",
    "",
    f"data: {data()}",
    "",
    f"data:{data(choice('BUY', logprobs={'content': [TOKEN]}))}",
    "",
    "data: {",
    'data: "choices": [{"index": 0, "delta": {"content": " A"}}]}',
    "",
    f"data: {json.dumps({**CHUNK, 'choices': None})}",
    "",
    f"data: {data(choice('', 'stop'))}",
    "",
    f"data: {data(usage={'prompt_tokens': 3, 'completion_tokens': 2, 'total_tokens': 5})}",
    "",
]


@pytest.mark.parametrize(("newline", "end"), [("\n", "data: [DONE]\n\n"), ("\r\n", "")], ids=["lf", "crlf, no end"])
def test_ids_comments_and_empty_events_break_no_stream(
    answering: Answering, database: Database, newline: str, end: str
) -> None:
    gateway = answering("text/event-stream", newline.join(STREAM) + newline + end)
    reply = httpx.post(f"{gateway.url}/chat/completions", json={**BODY, "stream": True}, timeout=30)
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "BUY A"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    (token,) = [token for chunk in chunks for token in (chunk["choices"][0]["logprobs"] or {}).get("content", ())]
    assert token["bytes"] == [240, 159]
    assert recorded(gateway) == 1
    with database.connect() as conn:
        (call,) = calls_by_id(conn, [chunks[0]["id"]]).values()
    assert (call.response, call.finish_reason) == ("BUY A", "stop")


def test_a_stream_that_turns_into_an_error_ends_with_it(answering: Answering) -> None:
    text = f"data: {data(choice('BUY'))}\n\ndata: {json.dumps({'error': {'message': 'out of memory'}})}\n\n"
    gateway = answering("text/event-stream", text)
    reply = httpx.post(f"{gateway.url}/chat/completions", json={**BODY, "stream": True}, timeout=30)
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: {")]
    assert (reply.status_code, events[-1]["error"]["code"]) == (200, "upstream")
    assert recorded(gateway) == 0
