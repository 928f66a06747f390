"""Dagster's statements with the schema of every table, in sessions that look names up in `pg_catalog` alone.

Dagster names its tables without a schema. With `public` in the search path, an operator or a function that another
role made there can be taken for PostgreSQL's own and then runs with our rights. The dialect below is SQLAlchemy's of
psycopg2; Dagster's storages are built on it, so nothing of theirs is changed. `dagster instance migrate` alters tables
by their bare names: for as long as it does, `finding_tables` lets its session find them. Tables that another role made
under Dagster's names are not written to at all (`require_own_tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from sqlalchemy import text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2, PGIdentifierPreparer_psycopg2
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.sql.expression import TableClause

from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.foreign_objects import refuse_foreign
from babylon_assets.ledger.sessions import SESSION_OPTIONS, connect

#: The scheme of URLs that get this dialect.
SCHEME = "postgresql+qualified"
#: Where Dagster's tables lie, unless the URL's own options name a search path.
SCHEMA = "public"
_SEARCH_PATH = re.compile(r"""search_path\s*=\s*["']?([^\s,"']+)""")

#: Every table that Dagster looks for.
TABLES = sorted(
    {"alembic_version"}.union(
        RunStorageSqlMetadata.tables, SqlEventLogStorageMetadata.tables, ScheduleStorageSqlMetadata.tables
    )
)
#: Addresses of which this process knows that Dagster's tables are there, and whose they are.
_OWN: set[str] = set()


def require_own_tables(address: Address, *, complete: bool) -> None:
    """Make sure that no other role has made a table under one of Dagster's names; asked once of an address.

    Dagster's sessions would run the triggers of such a table with our rights.

    Args:
        complete: whether all of Dagster's tables are there by now, so that nobody can make one any more.

    Raises:
        SettingsError: there is one, or the address leads through a pooler that changes sessions; Dagster's locks and
            its search path belong to a session, as ours do.
        DatabaseUnavailable: the server does not answer.
    """
    if address.conninfo() in _OWN:
        return
    with connect(address, autocommit=True) as conn:
        refuse_foreign(conn.execute, _schema(address.parameters.get("options", "")), TABLES, routines=False)
    if complete:
        _OWN.add(address.conninfo())


def _schema(options: str) -> str:
    """The schema of Dagster's tables, by the options of a URL."""
    path = _SEARCH_PATH.search(options)
    return path[1] if path else SCHEMA


@contextmanager
def finding_tables(connection: Connection) -> Iterator[None]:
    """Let the session find Dagster's tables by their bare names inside the block.

    Raises:
        SettingsError: another role has made a function, an operator or one of the tables there, which the session would
            find as well.
    """
    dialect = connection.dialect
    schema = dialect.tables_schema if isinstance(dialect, QualifiedDialect) else SCHEMA
    refuse_foreign(connection.exec_driver_sql, schema, TABLES, routines=True)
    connection.execute(text("SELECT set_config('search_path', quote_ident(:schema), false)"), {"schema": schema})
    try:
        yield
    finally:
        connection.execute(text("SET search_path = pg_catalog"))


def qualified_url(url: str) -> str:
    """The URL of a PostgreSQL database, with psycopg2, in the scheme of this dialect."""
    return make_url(url).set(drivername=SCHEME).render_as_string(hide_password=False)


class _Preparer(PGIdentifierPreparer_psycopg2):
    dialect: QualifiedDialect

    def schema_for_object(self, thing: Any) -> str | None:  # type: ignore[override]
        schema: str | None = getattr(thing, "schema", None)
        return schema or (self.dialect.tables_schema if isinstance(thing, TableClause) else None)


class QualifiedDialect(PGDialect_psycopg2):
    """SQLAlchemy's dialect for psycopg2, with a schema before every table's name."""

    supports_statement_cache = True
    preparer = _Preparer
    tables_schema = SCHEMA

    def create_connect_args(self, url: URL) -> Any:
        arguments, parameters = super().create_connect_args(url)  # type: ignore[no-untyped-call]
        options = str(parameters.get("options", ""))
        self.tables_schema = _schema(options)
        return arguments, {**parameters, "options": f"{options} {SESSION_OPTIONS}".strip()}

    def _get_default_schema_name(self, connection: Any) -> str:
        return self.tables_schema

    def _pg_class_filter_scope_schema(self, query: Any, schema: str | None, *rest: Any, **more: Any) -> Any:
        own = schema or self.tables_schema
        return super()._pg_class_filter_scope_schema(query, own, *rest, **more)  # type: ignore[no-untyped-call]


registry.register("postgresql.qualified", __name__, QualifiedDialect.__name__)
