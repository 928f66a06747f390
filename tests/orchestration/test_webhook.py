"""A run that failed is told to a webhook, and what the webhook answers is not lost."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from babylon_assets.domain.errors import TransientError
from babylon_assets.orchestration import webhook
from tests.orchestration.conftest import FIRST, Loop, broken


class Hook(HTTPServer):
    """A webhook on loopback that keeps what it is told."""

    def __init__(self, code: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.code, self.told = code, []  # type: ignore[var-annotated]
        self.location = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(self.server.code)  # type: ignore[attr-defined]
        if self.server.location:  # type: ignore[attr-defined]
            self.send_header("Location", self.server.location)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_redirect_does_not_carry_the_message_to_another_host() -> None:
    elsewhere, hook = Hook(200), Hook(307)
    hook.location = elsewhere.url.replace("127.0.0.1", "localhost")
    with pytest.raises(TransientError, match="the webhook answered 307"):
        webhook.post(hook.url, {"text": "x"})
    for server in (elsewhere, hook):
        server.shutdown()
    assert elsewhere.told == []


def test_a_webhook_on_loopback_is_not_reached_through_a_proxy_and_another_is(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, hook = Hook(200), Hook(200)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    webhook.post(hook.url, {"text": "direct"})
    webhook.post("http://hooks.example.com/secret", {"text": "through the proxy"})
    for server in (proxy, hook):
        server.shutdown()
    assert ([said["text"] for said in hook.told], [said["text"] for said in proxy.told]) == (
        ["direct"],
        ["through the proxy"],
    )


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "socks4", "nonsense"])
def test_a_proxy_of_another_kind_is_asked_or_is_a_reason(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", f"{kind}://user:secret@127.0.0.1:1")
    with pytest.raises(TransientError, match=r"the webhook does not answer: [A-Za-z]+$"):
        webhook.post("http://hooks.example.com/secret", {"text": "x"})


def failed_run(loop: Loop) -> dg.DagsterRun:
    loop.play(FIRST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("babylon_assets.orchestration.assets.raw_trajectories.copy_window", broken)
        result = loop.run(loop.asked())
    run = loop.instance.get_run_by_id(result.run_id)
    assert run is not None
    return run


@pytest.mark.parametrize("attack", ["<!channel>", "<https://evil.example|log in>", "@everyone", "\x1b]0;x\x07", "&lt;"])
def test_no_text_of_an_agent_mentions_or_links_in_a_chat(attack: str) -> None:
    run = dg.DagsterRun(job_name="train_window")
    text = webhook.failure_of(run, f"SourceError: {attack} is no window")["text"]
    assert attack not in text
    assert not set(text) & set("<>\x1b")
    assert len(webhook.failure_of(run, "x" * 100_000)["text"]) < 3000


def test_a_failed_run_is_told_to_the_webhook(loop: Loop) -> None:
    hook = Hook(200)
    webhook.post(hook.url, webhook.failure_of(failed_run(loop), "it broke"))
    hook.shutdown()
    [told] = hook.told
    assert told["windows"] == [FIRST, FIRST]
    assert told["reason"] == "it broke"
    assert f"for {FIRST} failed: it broke" in told["text"]


@pytest.mark.parametrize("code", [404, 500])
def test_a_webhook_that_does_not_take_it_is_an_error_without_its_address(code: int) -> None:
    hook = Hook(code)
    with pytest.raises(TransientError) as caught:
        webhook.post(hook.url, {"text": "x"})
    hook.shutdown()
    hook.server_close()
    assert str(caught.value) == f"the webhook answered {code}"
    with pytest.raises(TransientError) as caught:
        webhook.post(hook.url, {"text": "x"})
    assert "127.0.0.1" not in str(caught.value) + repr(caught.value.__cause__)
