"""A database that may not answer yet: what the gateway's parts connect through, so that it starts without PostgreSQL.

What is done while it does not answer is theirs to decide.
"""

from __future__ import annotations

import threading
from typing import Protocol

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.ledger.database import Connection, Database, migrate, open_database


class Ledger(Protocol):
    """Where connections come from."""

    def connect_autocommit(self) -> Connection:
        """A new connection. Raises DatabaseUnavailable when the server does not answer, SettingsError when it refuses
        the role or the database."""
        ...


class AwaitedDatabase:
    """The database of the settings, opened and brought to the newest schema by the first who reaches it.

    May be used by several threads; one of them opens it, the others wait for that.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._guard = settings, threading.Lock()
        self._database: Database | None = None

    def open(self) -> Database:
        """The database, ready to be used.

        Raises:
            DatabaseUnavailable: the server does not answer; a later call may succeed.
            SettingsError, MissingDependency: a person must act.
        """
        from sqlalchemy.exc import DBAPIError

        with self._guard:
            if self._database is None:
                database = open_database(self._settings, begin=False)
                try:
                    migrate(database)
                except DBAPIError as error:
                    raise DatabaseUnavailable(f"{database.place} was lost while migrating: {error.orig}") from error
                self._database = database
            return self._database

    def connect_autocommit(self) -> Connection:
        return self.open().connect_autocommit()
