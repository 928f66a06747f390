"""The site beside another application, as it is beside Dagster's UI: its own paths, the same guard."""

from __future__ import annotations

from html import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from babylon_assets.config.settings import Settings
from babylon_assets.domain.site_links import link_checkpoint, link_partition, link_sample
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.ui_guard import UiGuard
from babylon_assets.serving.http.keys import hashed
from babylon_assets.site.application import SiteBeside, make_site
from tests.ledger.values import CHAIN
from tests.site.filled_ledger import WINDOWS


async def other(_: Request) -> PlainTextResponse:
    return PlainTextResponse("the other application")


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("listening")
    await socket.close()


def client(database: Database, keys: dict[str, str]) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", other), WebSocketRoute("/site/socket", listen)])
    beside = SiteBeside(app, make_site(Settings(environment="babylon"), lambda: database, beside_dagster=True))
    return TestClient(UiGuard(beside, keys, ()), base_url="http://127.0.0.1:3000")


def sample_of(window: int) -> tuple[str, str]:
    return WINDOWS[window], f"t3-{WINDOWS[window]}/0/0"


def test_each_application_has_its_own_paths(filled: Database) -> None:
    asked = client(filled, {})
    assert "Checkpoints" in asked.get("/site").text
    assert '<a href="/">Dagster</a>' in asked.get("/site/").text
    own = {"model_checkpoints": link_checkpoint(f"{CHAIN}@3"), "training_datasets": link_sample(*sample_of(2))}
    for asset, page in own.items():
        assert f'href="{escape(link_partition(asset, WINDOWS[2]))}"' in asked.get(page).text
    for path in ("/", "/sites", "/assets/site", "/runs?x=/site/"):
        assert asked.get(path).text == "the other application"
    with asked.websocket_connect("/site/socket", headers={"host": "127.0.0.1:3000"}) as socket:
        assert socket.receive_text() == "listening"


def test_the_guard_stands_before_both(filled: Database) -> None:
    asked = client(filled, {"anna": hashed("key")})
    assert [asked.get(path).status_code for path in ("/site/", "/site/style.css", "/")] == [401, 401, 401]
    assert asked.get("/site/", auth=("anna", "key")).status_code == 200
    foreign = {"host": "evil.example:3000", "origin": "http://evil.example"}
    assert client(filled, {}).get("/site/", headers=foreign).status_code == 421
    assert asked.post("/site/samples", auth=("anna", "key")).status_code == 405
