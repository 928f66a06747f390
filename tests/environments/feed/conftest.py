"""Databases with Feed's tables and the hour that `hour` plays, copied from one that is made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from babylon_assets.ledger.database import Database
from tests.environments.feed.hour import play_hour
from tests.environments.feed.tables import create_feed_tables
from tests.servers import Server


@pytest.fixture(scope="session")
def feed_played(server: Server, migrated: str) -> str:
    """Name of a template that holds our schema, Feed's tables and the hour."""
    name = server.create(migrated)
    with server.database(name).connect() as conn:
        create_feed_tables(conn)
        play_hour().write(conn)
    return name


@pytest.fixture
def feed_database(server: Server, feed_played: str) -> Iterator[Database]:
    """A fresh database that holds our schema, Feed's tables and the hour."""
    name = server.create(feed_played)
    yield server.database(name)
    server.drop(name)
