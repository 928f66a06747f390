"""What every asset is given: the settings and the database of this installation, as one Dagster resource.

Nothing is opened until an asset asks for a connection, so that the definitions load without a running server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from babylon_assets.settings import Settings
from babylon_assets.store.database import Database, open_database

if TYPE_CHECKING:
    import psycopg

    from babylon_assets.store.database import KeptConnection

_T = TypeVar("_T")
RESOURCE = "installation"


class Installation:
    """Settings and database; the database is opened on first use and kept."""

    def __init__(self, settings: Settings, database: Database | None = None) -> None:
        self.settings = settings
        self._given = database
        self._lock = threading.Lock()
        self._runs = 0
        self._idle: list[KeptConnection] = []
        self._known: dict[str, Any] = {}

    @cached_property
    def database(self) -> Database:
        return self._given or open_database(self.settings)

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A connection for one unit of work: committed at the end of the block, rolled back when it raises."""
        if not self._runs:
            with self.database.connect() as conn:
                yield conn
            return
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        kept = kept or self.database.connect()
        try:
            with kept.unit_of_work() as conn:
                yield conn
        finally:
            self._give_back(kept)

    @contextmanager
    def connections_kept(self) -> Iterator[None]:
        """Within the block, connections are kept for the next unit of work, and closed at the end of the outermost.

        Four are opened for a window otherwise, which takes as long as all that is done with 50 trajectories.
        """
        with self._lock:
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                done = [] if self._runs else self._idle[:]
                if not self._runs:
                    self._known.clear()
                del self._idle[: len(done)]
            for conn in done:
                conn.close()

    def once_a_run(self, name: str, find: Callable[[], _T]) -> _T:
        """What `find` finds, which is the same for all windows; within `connections_kept` it is looked for once."""
        if not self._runs:
            return find()
        if name not in self._known:
            self._known[name] = find()
        found: _T = self._known[name]
        return found

    def _give_back(self, conn: KeptConnection) -> None:
        with self._lock:
            kept = self._runs > 0 and not conn.closed
            if kept:
                self._idle.append(conn)
        if not kept:
            conn.close()

    def __repr__(self) -> str:
        return f"Installation(home={str(self.settings.home)!r})"
