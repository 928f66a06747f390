"""Dagster's UI is asked by its own pages and by programs, and by nobody else's page."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from babylon_assets.orchestration.ui_guard import UiGuard
from babylon_assets.serving.http.keys import hashed

LAUNCH = "mutation { launchRun { __typename } }"
HERE = {"host": "127.0.0.1:3000"}
OWN = {**HERE, "origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-origin"}


async def answer(_: Request) -> JSONResponse:
    return JSONResponse({"data": "done"})


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("listening")
    await socket.close()


def client(keys: dict[str, str] | None = None, *hosts: str) -> TestClient:
    routes: list[Any] = [
        Route("/graphql", answer, methods=["GET", "POST"]),
        Route("/runs", answer, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", listen),
    ]
    guarded = UiGuard(Starlette(routes=routes), {name: hashed(key) for name, key in (keys or {}).items()}, hosts)
    return TestClient(guarded, base_url="http://127.0.0.1:3000")


@pytest.mark.parametrize("headers", [HERE, OWN, {**OWN, "host": "localhost:3000", "origin": "http://localhost:3000"}])
def test_its_own_pages_and_programs_ask(headers: dict[str, str]) -> None:
    asked = client()
    reply = asked.post("/graphql", json={"query": LAUNCH}, headers=headers)
    assert (reply.status_code, reply.headers["x-frame-options"]) == (200, "SAMEORIGIN")
    assert asked.get("/runs", headers=headers).status_code == 200
    with asked.websocket_connect("/graphql", headers=headers) as socket:
        assert socket.receive_text() == "listening"


FOREIGN = [
    {**HERE, "origin": "http://evil.example"},
    {**HERE, "origin": "null"},
    {**HERE, "origin": "http://127.0.0.1:9999"},
    {**HERE, "sec-fetch-site": "cross-site"},
    {**HERE, "sec-fetch-site": "same-site"},
    {"host": "evil.example:3000"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "evil.example:3000", "origin": "http://evil.example:3000"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_sites_page_asks_nothing(headers: dict[str, str]) -> None:
    asked = client()
    assert asked.post("/graphql", json={"query": LAUNCH}, headers=headers).status_code in (403, 421)
    assert asked.post("/runs", headers=headers).status_code in (403, 421)
    assert asked.get("/graphql", headers=headers).status_code in (403, 421)
    with pytest.raises(WebSocketDisconnect), asked.websocket_connect("/graphql", headers=headers) as socket:
        socket.receive_text()


def test_a_link_from_another_site_leads_to_a_page_and_to_nothing_else() -> None:
    followed = {**HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client().get("/runs", headers=followed).status_code == 200
    assert client().get("/graphql", params={"query": LAUNCH}, headers=followed).status_code == 403
    assert client().post("/runs", headers=followed).status_code == 403


def test_nothing_is_asked_of_graphql_by_get_or_by_a_form() -> None:
    asked = client()
    assert asked.get("/graphql", params={"query": LAUNCH}, headers=OWN).status_code == 405
    assert asked.get("/graphql", params={"query": "{ version }"}, headers=HERE).status_code == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/graphql"):
        assert asked.post("/graphql", content=LAUNCH, headers={**HERE, "content-type": kind}).status_code == 415
    assert asked.put("/graphql", json={}, headers=HERE).status_code == 405


def test_a_name_of_ones_own_is_set() -> None:
    assert client(None, "dagster.example").get("/runs", headers={"host": "dagster.example"}).status_code == 200
    assert client(None, "dagster.example").get("/runs", headers={"host": "other.example"}).status_code == 421


def test_keys_are_asked_for_as_a_password_or_as_a_bearer() -> None:
    asked = client({"anna": "the key"})
    refused = asked.get("/runs", headers=HERE)
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    password = "Basic " + base64.b64encode(b"anna:the key").decode()
    for value in (password, "Bearer the key"):
        assert asked.get("/runs", headers={**HERE, "authorization": value}).status_code == 200
        with asked.websocket_connect("/graphql", headers={**HERE, "authorization": value}) as socket:
            assert socket.receive_text() == "listening"
    for value in ("Basic !", "Basic " + base64.b64encode(b"anna:no").decode(), "Bearer no", "the key"):
        assert asked.get("/runs", headers={**HERE, "authorization": value}).status_code == 401
    with pytest.raises(WebSocketDisconnect), asked.websocket_connect("/graphql", headers=HERE) as socket:
        socket.receive_text()
