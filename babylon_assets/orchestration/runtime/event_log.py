"""Dagster's storage on PostgreSQL, as dagster_postgres has it, with the cost of writing an event cut down.

What is stored, and how it is read, is dagster_postgres's own; `storage: postgres` in dagster.yaml works on the same
tables. As it comes, each event opens three to six connections and asks the catalogue for a table: 7 to 10 ms, here 1 to
2 ms. A backfill of a month writes ten thousand events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import dagster_postgres.event_log.event_log
import sqlalchemy as db
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.sql import run_alembic_upgrade
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import (
    DagsterPostgresException,
    create_pg_engine,
    pg_alembic_config,
    pg_url_from_config,
)
from sqlalchemy.engine import Connection

from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.ledger.addresses import parse_address
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.orchestration.runtime.qualified_names import finding_tables, qualified_url, require_own_tables
from babylon_assets.orchestration.runtime.tags import UNFINISHED

#: A connection that lay idle longer is opened anew; firewalls drop the ones that lie for hours.
RECYCLE_SECONDS = 1800
#: Webserver and daemon write and read from several threads.
MORE_CONNECTIONS = 20
#: Dagster's own migrations.
ALEMBIC = pg_alembic_config(dagster_postgres.event_log.event_log.__file__)
MODULE = "babylon_assets.orchestration.runtime.event_log"


class EventLog(PostgresEventLogStorage):
    """Events written on connections that stay open, each event, or many together, in one transaction."""

    def __init__(self, postgres_url: str, should_autocreate_tables: bool = True) -> None:
        self._mine = threading.local()
        self._tables: set[str] = set()
        self._states: dict[tuple[dg.AssetCheckKey, dg.PartitionsDefinition[Any] | None], AssetCheckState] = {}
        super().__init__(postgres_url, should_autocreate_tables)
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=MORE_CONNECTIONS,
            pool_recycle=RECYCLE_SECONDS,
            pool_pre_ping=True,
        )

    @property
    def engine(self) -> db.engine.Engine:
        """The connections to Dagster's database, each statement a transaction of its own."""
        return self._engine

    @contextmanager
    def together(self) -> Iterator[None]:
        """Materializations and results of checks that this thread stores inside the block are written at its end, in
        one transaction: seen at once, or, when the block raises, never. Other events are written as they come.
        """
        if getattr(self._mine, "held", None) is not None:
            yield
            return
        held: list[EventLogEntry] = []
        self._mine.held = held
        try:
            yield
        finally:
            self._mine.held = None
        if held:
            self._store(held)

    def get_asset_check_state(
        self, keys: Sequence[tuple[dg.AssetCheckKey, dg.PartitionsDefinition[Any] | None]]
    ) -> Mapping[dg.AssetCheckKey, AssetCheckState]:
        """As the original has it, from what was found before where nothing was planned, made or checked since.

        The original goes through every partition each time: 0.7 ms of each, for every check of a page.
        """
        states = {key: self._states[key, of] for key, of in keys if (key, of) in self._states and self._holds(key, of)}
        rest = [(key, of) for key, of in keys if key not in states]
        anew = super().get_asset_check_state(rest) if rest else {}
        self._states |= {(key, of): anew[key] for key, of in rest}
        return states | dict(anew)

    def _holds(self, key: dg.AssetCheckKey, partitions: dg.PartitionsDefinition[Any] | None) -> bool:
        """Whether nothing has happened since a state of a check was found, and no run was to add to it."""
        state = self._states[key, partitions]
        if state.in_progress_runs:
            return False
        known = state.latest_storage_id
        return self._newest_event(key) <= known or not self.get_asset_check_partition_info([key], known)

    def _newest_event(self, key: dg.AssetCheckKey) -> int:
        """The newest event of a check or of its asset, read by an index; 0 before the first."""
        checks, events, asset = AssetCheckExecutionsTable.c, SqlEventLogStorageTable.c, key.asset_key.to_string()
        newest = (
            db.select(db.func.max(checks.evaluation_event_storage_id)).where(
                checks.asset_key == asset, checks.check_name == key.name
            ),
            db.select(db.func.max(events.id)).where(
                events.asset_key == asset, events.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value
            ),
        )
        with self.index_connection() as connection:
            return max(connection.execute(query).scalar() or 0 for query in newest)

    def wipe_asset(self, asset_key: dg.AssetKey) -> None:
        super().wipe_asset(asset_key)
        self._states.clear()

    def store_event(self, event: EventLogEntry) -> None:
        held: list[EventLogEntry] | None = getattr(self._mine, "held", None)
        if event.dagster_event_type not in _TOGETHER:
            with _in_our_words(), self._transaction():
                super().store_event(event)
        elif held is None:
            self._store([event])
        else:
            held.append(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """What a run plans to make, and what it made, as one statement each; the rest as the original does it."""
        others = [event for event in events if event.dagster_event_type not in _TOGETHER]
        with _in_our_words(), self._transaction():
            if len(others) < len(events):
                self._store([event for event in events if event.dagster_event_type in _TOGETHER])
            if others:
                super().store_event_batch(others)

    def _store(self, events: Sequence[EventLogEntry]) -> None:
        """The rows that the original writes of each event, several events as one statement where it can be one."""
        statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
        with _in_our_words(), self._transaction(), self.index_transaction() as connection:
            ids = [row[0] for row in connection.execute(statement).fetchall()]
            positions = [place for place, event in enumerate(events) if event.dagster_event_type in ASSET_EVENTS]
            self._store_asset_event_tags(
                connection, [events[place] for place in positions], [ids[place] for place in positions]
            )
            for place in {events[place].get_dagster_event().asset_key: place for place in positions}.values():
                self._store_asset_event(connection, events[place], ids[place])
            for event, number in zip(events, ids, strict=True):
                if event.dagster_event_type in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(event, number)

    def remove_logs(self, before: datetime, at_once: int = 10_000) -> int:
        """Remove events from before a time, of runs that have ended, and say how many.

        What belongs to an asset or a check stays, because partitions are materialized as long as it is there, and so
        do failures. Each `at_once` events are one transaction, so that writers hardly wait.
        """
        events, removed = SqlEventLogStorageTable, 0
        running = db.select(RunsTable.c.run_id).where(RunsTable.c.status.in_([status.value for status in UNFINISHED]))
        oldest = (
            db.select(events.c.id)
            .where(events.c.timestamp < before.astimezone(UTC).replace(tzinfo=None))
            .where(db.or_(events.c.dagster_event_type.is_(None), events.c.dagster_event_type.notin_(_KEPT)))
            .where(events.c.run_id.notin_(running))
            .order_by(events.c.id)
            .limit(at_once)
        )
        while True:
            with self._transaction(), self.index_connection() as connection:
                count = connection.execute(db.delete(events).where(events.c.id.in_(oldest.scalar_subquery()))).rowcount
            removed += count
            if count < at_once:
                return removed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that this thread asks of the database inside the block is one transaction on one connection."""
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

    def upgrade(self) -> None:
        """As the original, in a session that finds the tables by the bare names that migrations write."""
        with self._connect() as connection, finding_tables(connection):
            run_alembic_upgrade(ALEMBIC, connection)

    def has_table(self, table_name: str) -> bool:
        """Asked for every event; a table that was there once stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def dispose(self) -> None:
        super().dispose()
        self._engine.dispose()


@contextmanager
def _in_our_words() -> Iterator[None]:
    """A lost database as one sentence: Dagster prints what a store raises, and SQLAlchemy's error holds the rows.

    Raises:
        DatabaseUnavailable: in place of the driver's error.
    """
    try:
        yield
    except (db.exc.OperationalError, DagsterPostgresException) as error:
        raise named_error(error) or error from error


#: What is never removed.
_KEPT = sorted(
    kind.value
    for kind in (*ASSET_EVENTS, *ASSET_CHECK_EVENTS, DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE)
)
#: Events that are independent of one another and of the order in which they are written.
_TOGETHER = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_CHECK_EVALUATION,
    }
)


class _RunStorage(PostgresRunStorage):
    def upgrade(self) -> None:
        with self.connect() as connection, finding_tables(connection):
            run_alembic_upgrade(ALEMBIC, connection)


class _ScheduleStorage(PostgresScheduleStorage):
    def upgrade(self) -> None:
        with self.connect() as connection, finding_tables(connection):
            run_alembic_upgrade(ALEMBIC, connection)


class Storage(DagsterPostgresStorage):
    """dagster_postgres's storage with our event log; `storage: custom` of dagster.yaml names it.

    Raises:
        SettingsError: as of `require_own_tables`.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        address = parse_address(postgres_url, "DAGSTER_DATABASE_URL")
        with suppress(DatabaseUnavailable):  # Dagster waits for a server in its own way
            require_own_tables(address, complete=False)
        postgres_url = qualified_url(postgres_url)
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = EventLog(postgres_url, should_autocreate_tables)
        self._run_storage = _RunStorage(postgres_url, should_autocreate_tables)
        self._schedule_storage = _ScheduleStorage(postgres_url, should_autocreate_tables)
        with suppress(DatabaseUnavailable):
            require_own_tables(address, complete=should_autocreate_tables)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Storage:
        autocreate = config_value.get("should_autocreate_tables", True)
        return cls(pg_url_from_config(config_value), autocreate, inst_data)


def remove_old_events(instance: dg.DagsterInstance, before: datetime) -> int:
    """Remove what runs that have ended said before a time, but for what they made, checked and why they failed.

    Returns:
        How many events were removed; of an instance whose event log is not ours, none.
    """
    storage = instance.event_log_storage
    return storage.remove_logs(before) if isinstance(storage, EventLog) else 0
