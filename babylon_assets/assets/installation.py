"""What every asset is given: the settings and the database of this installation, as one Dagster resource.

Nothing is opened until an asset asks for a connection, so that the definitions load without a running server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from babylon_assets.settings import Settings
from babylon_assets.store.database import Database, open_database

if TYPE_CHECKING:
    import psycopg

RESOURCE = "installation"


class Installation:
    """Settings and database; the database is opened on first use and kept."""

    def __init__(self, settings: Settings, database: Database | None = None) -> None:
        self.settings = settings
        self._given = database

    @cached_property
    def database(self) -> Database:
        return self._given or open_database(self.settings)

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A connection for one unit of work: committed at the end of the block, rolled back when it raises."""
        with self.database.connect() as conn:
            yield conn

    def __repr__(self) -> str:
        return f"Installation(home={str(self.settings.home)!r})"
