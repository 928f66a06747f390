"""What every asset is given: the settings and the database of this installation, as one Dagster resource.

Nothing is opened until an asset asks for a connection, so that the definitions load without a running server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from babylon_assets.config.settings import Settings
from babylon_assets.environments.base import Environment
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.database import Database, open_database
from babylon_assets.ledger.window_length import check_window_length

if TYPE_CHECKING:
    import psycopg

_T = TypeVar("_T")
RESOURCE = "installation"


class Installation:
    """Settings and database; the database is opened on first use and kept."""

    def __init__(
        self,
        settings: Settings,
        database: Database | None = None,
        heard: Callable[[int, int, int], None] = lambda *_: None,
        begins: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """
        Args:
            heard: called after each window of a run with the windows done, of how many, and how many failed.
            begins: called before an asset of a window is made, with the names of both.
        """
        self.settings = settings
        self._given = database
        self.heard, self.begins = heard, begins
        self._idle: list[psycopg.Connection] | None = None
        self._idle_source: list[psycopg.Connection] | None = None
        self._known: dict[str, Any] = {}

    @cached_property
    def database(self) -> Database:
        if self._given is not None:
            return self._given
        database = open_database(self.settings)
        check_window_length(self.settings, database)
        return database

    @property
    def environment(self) -> Environment:
        """The environment of the settings: one for each block of `reusing_connections`, so that it may remember."""
        return self.once_a_run("environment", lambda: open_environment(self.settings))

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A connection for one unit of work: committed at the end of the block, rolled back when it raises."""
        with _unit_of_work(self._idle, self.database.connect) as conn:
            yield conn

    @contextmanager
    def connect_source(self) -> Iterator[psycopg.Connection]:
        """As `connect`, to the database that the environment's tables lie in."""
        if not self.database.is_apart:
            with self.connect() as conn:
                yield conn
            return
        with _unit_of_work(self._idle_source, self.database.connect_source) as conn:
            yield conn

    @contextmanager
    def source_of(self, conn: psycopg.Connection) -> Iterator[psycopg.Connection]:
        """As `Database.source_of`: `conn` itself, unless the environment's tables lie in another database."""
        if not self.database.is_apart:
            yield conn
            return
        with self.connect_source() as source:
            yield source

    @contextmanager
    def reusing_connections(self) -> Iterator[None]:
        """Inside the block, connections are kept for the next unit of work; opening one takes 5 ms.

        One whose work failed is closed. For one thread.
        """
        self._idle, self._idle_source = [], []
        try:
            yield
        finally:
            for conn in (*self._idle, *self._idle_source):
                conn.close()
            self._idle = self._idle_source = None
            self._known.clear()

    @contextmanager
    def alone(self) -> Iterator[Installation]:
        """The same for one thread, which reuses connections for the block: sensors tick beside one another."""
        own = Installation(self.settings, self.database)
        with own.reusing_connections():
            yield own

    def once_a_run(self, name: str, find: Callable[[], _T]) -> _T:
        """What `find` finds, which is the same for all windows; within `reusing_connections` it is looked for once."""
        if self._idle is None:
            return find()
        if name not in self._known:
            self._known[name] = find()
        value: _T = self._known[name]
        return value

    def __repr__(self) -> str:
        return f"Installation(home={str(self.settings.home)!r})"


@contextmanager
def _unit_of_work(
    idle: list[psycopg.Connection] | None, open_connection: Callable[[], psycopg.Connection]
) -> Iterator[psycopg.Connection]:
    """An idle connection, or a new one, committed at the end of the block; kept afterwards where there is a list."""
    with ExitStack() as ending:
        conn = ending.enter_context(idle.pop() if idle else open_connection())
        yield conn
        if idle is not None:
            conn.commit()
            conn.isolation_level = conn.read_only = None
            ending.pop_all()
            idle.append(conn)
