"""The game's own client, pointed at the gateway by its address alone: probed, answered, retried, recorded."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import httpx
import pytest

from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id
from tests.feed_client import FeedClient
from tests.gateways import RunningGateway

Gateways = Callable[..., RunningGateway]


def all_recorded(gateway: RunningGateway, database: Database) -> list[InferenceCall]:
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        query = "SELECT call_id FROM babylon_training.inference_calls ORDER BY received_at"
        ids = [row[0] for row in conn.execute(query)]
        calls = calls_by_id(conn, ids)
    return [calls[call_id] for call_id in ids]


def test_the_game_is_answered_by_the_gateways_address_alone(gateway_with: Gateways, database: Database) -> None:
    gateway = gateway_with(gateway_answer_tokens=8)
    for endpoint in (gateway.root, f"{gateway.root}/", gateway.url, f"{gateway.url}/chat/completions"):
        assert FeedClient(endpoint).is_available()
    client = FeedClient(gateway.root)
    assert client.body("P", "S", 1.0, 2048) == (
        b'{"model":"default","messages":[{"role":"system","content":"S"},{"role":"user","content":"P"}],'
        b'"temperature":1,"max_tokens":2048}'
    )
    answer = client.ask("A yes 40 \N{EURO SIGN}", "Trade.")
    other = FeedClient(f"{gateway.url}/chat/completions", model="feed-trader").ask("B no 40", max_tokens=1000)
    first, second = all_recorded(gateway, database)
    assert (first.response, second.response) == (answer, other)
    assert list(first.messages) == [Message("system", "Trade."), Message("user", "A yes 40 \N{EURO SIGN}")]
    assert (first.policy, first.agent_id, first.trajectory_id, first.temperature) == (
        "babylon-agent@0",
        None,
        None,
        0.7,
    )
    assert first.sampling == {"model": "default", "top_p": 1.0, "max_tokens": 8, "choice": 0}
    assert second.sampling is not None and second.sampling["model"] == "feed-trader"


def test_the_game_comes_back_until_the_gateway_answers(gateway_with: Gateways, database: Database) -> None:
    gateway, waits = gateway_with(gateway_answer_tokens=4), list[float]()
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    parts = gateway.gateway.parts

    def become_ready(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            gateway.gateway.parts = parts

    gateway.gateway.parts = None
    client = FeedClient(gateway.root, sleep=become_ready)
    assert not client.is_available()
    answer = client.ask("A yes 40")
    assert [call.response for call in all_recorded(gateway, database)] == [answer]
    assert waits == [5, 10]

    waits.clear()
    turned_away = threading.Thread(target=lambda: [closed.accept()[0].close() for _ in range(4)])
    turned_away.start()
    with pytest.raises(RuntimeError):
        FeedClient(f"http://127.0.0.1:{port}", sleep=waits.append).ask("A yes 40")
    turned_away.join(10)
    closed.close()
    assert waits == [5, 10, 15]


def test_an_alias_names_a_policy_and_strict_names_refuse_others(gateway_with: Gateways, database: Database) -> None:
    gateway = gateway_with(
        model_aliases="gpt-4.1=base,claude-*=babylon-agent@0,lost-*=babylon-agent@9",
        gateway_strict_names=True,
        gateway_answer_tokens=4,
    )

    def ask(model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "A yes 40"}]}
        return httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)

    assert [ask(name).status_code for name in ("gpt-4.1", "claude-x", "babylon-agent")] == [200, 200, 200]
    refused = [ask(name) for name in ("default", "lost-one", "babylon-agent@9")]
    assert [reply.status_code for reply in refused] == [404, 404, 404]
    assert "babylon-agent@9" in refused[1].json()["error"]["message"]
    listed = {model["id"]: model["policy"] for model in httpx.get(f"{gateway.url}/models").json()["data"]}
    assert listed["gpt-4.1"] == "babylon-agent@0" and "claude-*" not in listed
    assert httpx.get(f"{gateway.url}/models/claude-7").json()["policy"] == "babylon-agent@0"
    calls = all_recorded(gateway, database)
    assert [(call.sampling or {})["model"] for call in calls] == ["gpt-4.1", "claude-x", "babylon-agent"]


def test_every_form_of_a_text_is_taken_and_an_image_is_refused_by_name(
    gateway_with: Gateways, database: Database
) -> None:
    gateway = gateway_with(gateway_answer_tokens=4)
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Tra"}, {"type": "text", "text": "de."}]},
        {"role": "user", "content": "A yes 40", "name": "anna"},
        {"role": "assistant", "content": None, "refusal": "I do not."},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "B no 40"},
    ]
    body = {"model": "any", "messages": messages, "stream_options": None, "top_p": 0}
    assert httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30).status_code == 200
    (call,) = all_recorded(gateway, database)
    assert [message.role for message in call.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert [message.content for message in call.messages] == ["Trade.", "A yes 40", "I do not.", "", "No.", "B no 40"]
    body["messages"] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    reply = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")
    assert "image_url" in reply.json()["error"]["message"]


def test_what_may_be_asked_is_answered_without_a_body(gateway_with: Gateways) -> None:
    gateway = gateway_with()
    for path in ("/", "/v1", "/v1/chat/completions"):
        reply = httpx.options(f"{gateway.root}{path}")
        assert (reply.status_code, reply.headers["allow"]) == (204, "HEAD, OPTIONS, POST")
    assert httpx.head(f"{gateway.url}/models").status_code == 200
