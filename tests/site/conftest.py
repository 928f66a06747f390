"""The site over a filled ledger, asked in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database
from babylon_assets.site.application import make_site
from tests.gateways import wait_for
from tests.servers import Server
from tests.site.filled_ledger import fill

Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def filled(server: Server, migrated: str) -> Iterator[Database]:
    """A database with the ledger of `filled_ledger.fill`, which no test of the module changes."""
    name = server.create(migrated)
    with server.database(name).connect() as conn:
        fill(conn)
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def page(filled: Database) -> Ask:
    """The text of a page that is there, over the filled ledger."""
    asked = client_of(filled)

    def ask(path: str) -> str:
        reply = asked.get(path)
        assert reply.status_code == 200, reply.text
        return str(reply.text)

    return ask


@pytest.fixture
def client(database: Database) -> TestClient:
    """The site over a database of the test's own."""
    return client_of(database)


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The address of an application that is served over HTTP."""
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_for(lambda: running.started)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(30)


def client_of(database: Database) -> TestClient:
    settings = Settings(environment="babylon", wandb_api_key="a-secret-that-must-not-show")
    return TestClient(make_site(settings, lambda: database), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
