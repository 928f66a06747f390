"""Every answer can be recorded: what could not be is refused before anything of an answer leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from babylon_assets.ledger.database import Database
from tests.gateways import RunningGateway

Gateways = Callable[..., RunningGateway]
BODY = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 2}


UNFIT: list[dict[str, Any]] = [
    {"metadata": {"at": "9999-12-31T23:59:59-14:00"}},
    {"metadata": {"at": "0001-01-01T00:00:00+14:00"}},
    {"metadata": {"at": "9999-12-31T23:59:59+00:00"}},
    {"metadata": {"step": "9" * 400}},
    {"metadata": {"agent": "NUL \0"}},
    {"metadata": {"trajectory": "y" * 300}},
    {"stop": "NUL \0"},
    {"stop": ["y" * 100_000]},
    {"model": "y" * 100_000},
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_recorded_is_refused_before_the_first_piece(gateway_with: Gateways, stream: bool) -> None:
    gateway = gateway_with()
    for changes in UNFIT:
        refused = httpx.post(f"{gateway.url}/chat/completions", json={**BODY, **changes, "stream": stream}, timeout=30)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), changes
        assert len(refused.content) < 1500
    assert gateway.parts.source.load() == (0, 0)


def test_what_is_nested_too_deeply_is_refused_where_it_would_be_kept(gateway_with: Gateways) -> None:
    gateway = gateway_with()
    tool = {"type": "function", "function": {"name": "f", "parameters": "@"}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": "@"}}
    for changes in ({"more": "@"}, {"tools": [tool]}, {"response_format": form}, {"messages": "@"}):
        for levels in (100, 900, 980, 100_000):
            deep = '{"a":' * levels + "1" + "}" * levels
            body = json.dumps({**BODY, **changes}).replace('"@"', deep)
            headers = {"content-type": "application/json"}
            reply = httpx.post(f"{gateway.url}/chat/completions", content=body, headers=headers, timeout=30)
            assert reply.status_code in ((200, 400) if "more" in changes else (400,)), (changes, levels)
            judged = httpx.post(f"{gateway.url}/feedback", content=body, headers=headers, timeout=30)
            assert judged.status_code == 400
    recorder = gateway.parts.recorder
    assert recorder is not None and (recorder.refused, recorder.lost) == (0, 0)
    assert gateway.parts.source.load() == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_odd_and_can_be_recorded_is(gateway_with: Gateways, database: Database, stream: bool) -> None:
    gateway = gateway_with()
    odd = {
        "messages": [{"role": "user", "content": "NUL \0 and “ü” \u202e"}],
        "metadata": {"at": "1971-01-01T00:00:00-14:00", "agent": "\u0661", "step": "999999999"},
        "seed": -(2**63) + 1,
        "stop": ["\u2028", "\ud7ff"],
        "stream": stream,
    }
    reply = httpx.post(f"{gateway.url}/chat/completions", json={**BODY, **odd}, timeout=30)
    assert reply.status_code == 200
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.flush(20)
    assert (recorder.written, recorder.refused, recorder.lost) == (1, 0, 0)
    with database.connect() as conn:
        assert conn.execute("SELECT agent_id, step FROM babylon_training.inference_calls").fetchall() == [
            ("\u0661", 999_999_999)
        ]
