"""What somebody thought of an answer: taken once, of calls and agents that the key speaks for, and bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from babylon_assets.ledger.feedback import MOST_ALIKE
from babylon_assets.serving.http.keys import new_key
from tests.gateways import RunningGateway, wait_for

AT = "2026-11-05T14:03:00+00:00"


def send(gateway: RunningGateway, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{gateway.url}/feedback", json=body, headers=headers, timeout=30)


def answered(gateway: RunningGateway, **headers: str) -> str:
    """The id of a call."""
    body = {"model": "any", "max_tokens": 2, "messages": [{"role": "user", "content": "A yes 40"}]}
    return str(httpx.post(f"{gateway.url}/chat/completions", json=body, headers=headers, timeout=30).json()["id"])


JSON = {"content-type": "application/json"}


def kept(gateway: RunningGateway, call_id: str) -> list[tuple[Any, ...]]:
    with gateway.database.connect_autocommit() as conn:
        query = "SELECT number, text FROM babylon_training.feedback WHERE call_id = %s ORDER BY received_at"
        return conn.execute(query, [call_id]).fetchall()


def test_numbers_booleans_and_texts_are_kept(shared_gateway: RunningGateway) -> None:
    call_id = answered(shared_gateway)
    for value in (0.5, 3, True, False, "too bold"):
        assert send(shared_gateway, {"call_id": call_id, "value": value}).status_code == 200
    assert kept(shared_gateway, call_id) == [(0.5, None), (3, None), (1, None), (0, None), (None, "too bold")]
    assert send(shared_gateway, {"agent": "anna", "at": AT, "value": 1}).status_code == 200
    half = {"call_id": answered(shared_gateway), "value": "cut \ud83d"}  # JSON writes it as an escape
    sent = httpx.post(f"{shared_gateway.url}/feedback", content=json.dumps(half), headers=JSON, timeout=30)
    assert (sent.status_code, kept(shared_gateway, half["call_id"])) == (200, [(None, "cut \ufffd")])


def test_the_same_key_of_idempotency_is_one_judgment(shared_gateway: RunningGateway) -> None:
    call_id = answered(shared_gateway)
    body = {"call_id": call_id, "value": 1, "idempotency_key": "k-1"}
    first, again = send(shared_gateway, body), send(shared_gateway, body)
    assert first.status_code == 200 and first.json() == again.json()
    other = send(shared_gateway, {"call_id": call_id, "value": 0}, **{"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["error"]["param"]) == (409, "idempotency_key")
    assert kept(shared_gateway, call_id) == [(1, None)]


def test_a_ledger_that_does_not_answer_holds_up_nobody_else(shared_gateway: RunningGateway) -> None:
    places = shared_gateway.parts.access
    with ThreadPoolExecutor(1) as threads, shared_gateway.database.connect_autocommit() as locking:
        with locking.transaction():
            locking.execute("LOCK TABLE babylon_training.feedback IN ACCESS EXCLUSIVE MODE")
            waiting = threads.submit(send, shared_gateway, {"agent": "slow", "at": AT, "value": 1})
            wait_for(lambda: places.held("anybody") == 1)
            assert httpx.get(f"{shared_gateway.root}/health", timeout=5).status_code == 200
            assert not waiting.done()
        assert waiting.result(20).status_code == 200


def test_no_call_is_judged_without_end(shared_gateway: RunningGateway) -> None:
    call_id = answered(shared_gateway)
    body = {"call_id": call_id, "value": 1}
    once = send(shared_gateway, {**body, "idempotency_key": "first"})
    statuses = [send(shared_gateway, body).status_code for _ in range(MOST_ALIKE)]
    assert statuses == [200] * (MOST_ALIKE - 1) + [429]
    assert send(shared_gateway, {**body, "idempotency_key": "first"}).json() == once.json()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"value": 1}, 400, "call_id"),
        ({"value": 1, "agent": "anna"}, 400, "call_id"),
        ({"value": 1, "agent": "anna", "at": "yesterday"}, 400, "metadata"),
        ({"value": None, "call_id": "x"}, 400, "value"),
        ({"value": 1e9, "call_id": "x"}, 400, "value"),
        ({"value": "", "call_id": "x"}, 400, "value"),
        ({"value": "x" * 10_001, "call_id": "x"}, 400, "value"),
        ({"value": "\0", "call_id": "x"}, 400, "value"),
        ({"value": 1, "call_id": "nobody's"}, 404, "call_id"),
    ],
)
def test_what_judges_nothing_is_refused_by_name(
    shared_gateway: RunningGateway, body: dict[str, Any], status: int, param: str
) -> None:
    reply = send(shared_gateway, body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


def test_a_key_judges_the_agents_that_it_speaks_for(gateway_with: Callable[..., RunningGateway]) -> None:
    (anna, hashed), (game, other) = new_key(), new_key()
    gateway = gateway_with(gateway_keys={"anna": f"{hashed}:anna-*", "game": other})
    as_anna, as_game = {"Authorization": f"Bearer {anna}"}, {"Authorization": f"Bearer {game}"}
    hers = answered(gateway, **as_anna, **{"X-Babylon-Agent": "anna-1"})
    nobodys = answered(gateway, **as_game)
    assert send(gateway, {"call_id": hers, "value": 1}).status_code == 401
    assert send(gateway, {"call_id": hers, "value": 1}, **as_game).status_code == 403
    assert send(gateway, {"call_id": nobodys, "value": 1}, **as_anna).status_code == 403
    assert send(gateway, {"agent": "bob", "at": AT, "value": 1}, **as_anna).status_code == 403
    assert send(gateway, {"call_id": hers, "value": 1}, **as_anna).status_code == 200
    assert send(gateway, {"call_id": nobodys, "value": 1}, **as_game).status_code == 200
    assert send(gateway, {"agent": "bob", "at": AT, "value": 1}, **as_game).status_code == 200
