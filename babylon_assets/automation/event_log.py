"""Dagster's storage on PostgreSQL, as dagster_postgres has it, with the cost of writing an event cut down.

What is stored, and how it is read, is dagster_postgres's own; `storage: postgres` in dagster.yaml works on the same
tables. As it comes, each event opens three to six connections and asks the catalogue for a table: 7 to 10 ms, here 1 to
2 ms. A backfill of a month writes ten thousand events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy.engine import Connection

#: A connection that lay idle longer is opened anew; firewalls drop the ones that lie for hours.
RECYCLE_SECONDS = 1800
#: Webserver and daemon write and read from several threads.
MORE_CONNECTIONS = 20
MODULE = "babylon_assets.automation.event_log"


class EventLog(PostgresEventLogStorage):
    """Events written on connections that stay open, each event, or several together, in one transaction."""

    def __init__(self, postgres_url: str, should_autocreate_tables: bool = True) -> None:
        super().__init__(postgres_url, should_autocreate_tables)
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=MORE_CONNECTIONS,
            pool_recycle=RECYCLE_SECONDS,
            pool_pre_ping=True,
        )
        self._mine = threading.local()
        self._tables: set[str] = set()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread stores inside the block is one transaction: seen at once when it ends, or never."""
        if getattr(self._mine, "connection", None) is not None:
            yield
            return
        with super()._connect() as pooled:
            connection = pooled.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                self._mine.connection = connection
                try:
                    yield
                finally:
                    self._mine.connection = None

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        mine: Connection | None = getattr(self._mine, "connection", None)
        if mine is not None:
            yield mine
        else:
            with super()._connect() as connection:
                yield connection

    def store_event(self, event: EventLogEntry) -> None:
        with self.together():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """As the original, which makes one statement of materializations, and also of what a run plans to make."""
        planned = [event for event in events if event.dagster_event_type is _PLANNED]
        with self.together():
            if planned:
                self._store_planned(planned)
            others = [event for event in events if event.dagster_event_type is not _PLANNED]
            if others:
                super().store_event_batch(others)

    def _store_planned(self, events: Sequence[EventLogEntry]) -> None:
        statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
        newest = {event.get_dagster_event().asset_key: place for place, event in enumerate(events)}
        with self.index_transaction() as connection:
            ids = [row[0] for row in connection.execute(statement).fetchall()]
            for place in newest.values():
                self._store_asset_event(connection, events[place], ids[place])

    def has_table(self, table_name: str) -> bool:
        """Asked for every event; a table that was there once stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def dispose(self) -> None:
        super().dispose()
        self._engine.dispose()


_PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED


class Storage(DagsterPostgresStorage):
    """dagster_postgres's storage with our event log; `storage: custom` of dagster.yaml names it."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = EventLog(postgres_url, should_autocreate_tables)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Storage:
        autocreate = config_value.get("should_autocreate_tables", True)
        return cls(pg_url_from_config(config_value), autocreate, inst_data)
