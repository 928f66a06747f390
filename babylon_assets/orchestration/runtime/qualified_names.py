"""Dagster's statements with the schema of every table, in sessions that look names up in `pg_catalog` alone.

Dagster names its tables without a schema. With `public` in the search path, an operator or a function that another
role made there can be taken for PostgreSQL's own and then runs with our rights. The dialect below is SQLAlchemy's of
psycopg2; Dagster's storages are built on it, so nothing of theirs is changed. `dagster instance migrate` alters tables
by their bare names: for as long as it does, `finding_tables` lets its session find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2, PGIdentifierPreparer_psycopg2
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.sql.expression import TableClause

from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.sessions import SESSION_OPTIONS

#: The scheme of URLs that get this dialect.
SCHEME = "postgresql+qualified"
#: Where Dagster's tables lie, unless the URL's own options name a search path.
SCHEMA = "public"
_SEARCH_PATH = re.compile(r"""search_path\s*=\s*["']?([^\s,"']+)""")


#: Functions and operators of a schema that neither this role nor a superuser has made.
_FOREIGN = text("""
    SELECT made.name, r.rolname FROM (
        SELECT proname AS name, pronamespace AS place, proowner AS owner FROM pg_proc UNION ALL
        SELECT oprname, oprnamespace, oprowner FROM pg_operator) made
    JOIN pg_namespace n ON n.oid = made.place JOIN pg_roles r ON r.oid = made.owner
    WHERE n.nspname = :schema AND NOT r.rolsuper AND r.rolname <> current_user ORDER BY 1 LIMIT 1""")


@contextmanager
def finding_tables(connection: Connection) -> Iterator[None]:
    """Let the session find Dagster's tables by their bare names inside the block.

    Raises:
        SettingsError: another role has made a function or an operator there, which the session would find as well.
    """
    dialect = connection.dialect
    schema = dialect.tables_schema if isinstance(dialect, QualifiedDialect) else SCHEMA
    foreign = connection.execute(_FOREIGN, {"schema": schema}).fetchone()
    if foreign is not None:
        raise SettingsError(
            f"Dagster's tables lie in the schema {schema}, where the role {foreign[1]!r} has made {foreign[0]!r}; a "
            "migration could run that: have it dropped, then migrate again"
        )
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
        if path := _SEARCH_PATH.search(options):
            self.tables_schema = path[1]
        return arguments, {**parameters, "options": f"{options} {SESSION_OPTIONS}".strip()}

    def _get_default_schema_name(self, connection: Any) -> str:
        return self.tables_schema

    def _pg_class_filter_scope_schema(self, query: Any, schema: str | None, *rest: Any, **more: Any) -> Any:
        own = schema or self.tables_schema
        return super()._pg_class_filter_scope_schema(query, own, *rest, **more)  # type: ignore[no-untyped-call]


registry.register("postgresql.qualified", __name__, QualifiedDialect.__name__)
