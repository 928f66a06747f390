"""What `babylon doctor` asks the databases: ours, the environment's, and Dagster's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import psycopg

from babylon_assets.cli.diagnosis import Diagnosis, diagnose_by, refuse
from babylon_assets.config.settings import Settings
from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.errors import BabylonError, PermanentError, SettingsError, SourceError
from babylon_assets.domain.trajectories import Quarantined
from babylon_assets.ledger.addresses import parse_address
from babylon_assets.ledger.database import Connection, Database, open_database
from babylon_assets.ledger.sessions import connect, only_reads
from babylon_assets.ledger.sqlstates import named_error

if TYPE_CHECKING:
    from babylon_assets.environments.base import Environment, SourceWindow

#: Seconds by which two clocks may differ.
CLOCKS = 5.0


def diagnose_database(settings: Settings) -> Iterator[Diagnosis]:
    """Every check of a database, in the order in which a person would mend them."""
    name = "database"
    try:
        database = open_database(settings, begin=False)
        with database.connect_autocommit() as conn:
            server = conn.execute("SHOW server_version").fetchone()
            yield Diagnosis("database", f"PostgreSQL {server[0] if server else '?'} at {database.place}")
            yield _clock(conn)
            yield _time_zone(conn)
            yield _role(conn, database)
            yield diagnose_by("our tables", lambda: _revision(conn))
            yield from _standby(conn, database)
            yield from _dagster(settings, conn)
        name = "source" if database.is_apart else "the environment's tables"
        yield from _source(database)
        yield diagnose_by("the environment's tables", lambda: _record(settings, database))
        yield from _rights(settings, database)
    except BabylonError as error:
        yield refuse(name, error)


def _clock(conn: Connection) -> Diagnosis:
    """The database's clock against this machine's: windows are closed by this one and rows are dated by that."""
    before = time.time()
    row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    ahead = float(row[0]) - (before + time.time()) / 2
    remedy = "" if abs(ahead) <= CLOCKS else "set both clocks by NTP, or windows close before their rows are there"
    return Diagnosis("clock", f"the database's is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}", remedy)


def _time_zone(conn: Connection) -> Diagnosis:
    row = conn.execute("SHOW TimeZone").fetchone()
    zone = row[0] if row else "?"
    remedy = "" if zone == "UTC" else "remove the TimeZone from the role or the URL's options"
    return Diagnosis("time zone", f"our sessions are {zone}; this machine's {time.tzname[0]} plays no part", remedy)


def _role(conn: Connection, database: Database) -> Diagnosis:
    """Whether our schema is the role's own; a schema that is missing can be made by a role that may create."""
    row = conn.execute(
        """
        SELECT current_user, has_database_privilege(current_database(), 'CREATE'),
            (SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'babylon_training')
        """
    ).fetchone()
    assert row is not None
    role, may_create, owns = row
    if owns or (owns is None and may_create):
        return Diagnosis("role", f"{role} {'owns' if owns else 'may create'} the schema babylon_training")
    privilege = "CREATE SCHEMA" if owns is None else "ALTER SCHEMA"
    how = "AUTHORIZATION" if owns is None else "OWNER TO"
    return Diagnosis(
        "role",
        f"{role} does not own the schema babylon_training at {database.place}",
        f'have the owner of the database run: {privilege} babylon_training {how} "{role}"',
    )


def _revision(conn: Connection) -> str:
    from babylon_assets.ledger.database import newest_revision

    there = conn.execute("SELECT to_regclass('babylon_training.alembic_version')").fetchone()
    row = (
        conn.execute("SELECT version_num FROM babylon_training.alembic_version").fetchone()
        if there and there[0]
        else None
    )
    revision, newest = row[0] if row else "none", newest_revision()
    if revision != newest:
        raise PermanentError(f"revision {revision}, newest is {newest}; type: babylon migrate")
    return f"revision {revision}, the newest"


def _record(settings: Settings, database: Database) -> str:
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    with database.connect_source() as source:
        environment.check(source)
        windows = environment.list_windows(source)
        note = environment.describe_record(source)
    newest = f", the newest {windows[-1].window}" if windows else ""
    dry = _read_dry(environment, database, windows)
    return f"{environment.name}: {format_plural(len(windows), 'window')}{newest}{note}{dry}"


def _read_dry(environment: Environment, database: Database, windows: Sequence[SourceWindow]) -> str:
    """The newest window, read as training would read it, in a transaction that cannot write.

    Raises:
        BabylonError: it cannot be read, or none of its rows.
    """
    if not windows:
        return ""
    window, refused, rows = windows[-1].window, Counter[str](), 0
    try:
        with database.connect_source() as source:
            source.read_only = True
            for row in environment.read_window(source, window):
                rows += 1
                if isinstance(row, Quarantined):
                    refused[row.reason[:80]] += 1
    except psycopg.Error as error:
        raise (named_error(error) or error) from None
    if not refused:
        return ""
    [(reason, most)] = refused.most_common(1)
    text = f"{refused.total()} of {rows} rows of {window} would be refused, {most} of them for: {reason}"
    if refused.total() == rows:
        raise SourceError(f"{text}; see what wrote them")
    return f"; {text}"


def _standby(conn: Connection, database: Database) -> Iterator[Diagnosis]:
    """A hot standby refuses every write of ours and the locks of training; a role may be set to read only."""
    if not only_reads(conn):
        return
    row = conn.execute("SELECT current_user, pg_is_in_recovery()").fetchone()
    role, is_standby = row if row is not None else ("?", True)
    remedy = "set DATABASE_URL to the primary, or LEDGER_DATABASE_URL to a database that can be written"
    if database.is_apart:
        remedy = "set LEDGER_DATABASE_URL to a database that can be written"
    if not is_standby:
        alter = f'ALTER ROLE "{role}" IN DATABASE "{conn.info.dbname}" SET default_transaction_read_only = off'
        yield Diagnosis("read only", f"sessions of {role} only read (default_transaction_read_only)", f"run: {alter}")
    else:
        yield Diagnosis("standby", "the database is a standby and only reads", remedy)


def _source(database: Database) -> Iterator[Diagnosis]:
    """The environment's database, where our tables lie in another one."""
    if not database.is_apart:
        return
    with database.connect_source() as source:
        only = ", which only reads" if only_reads(source) else ""
    yield Diagnosis("source", f"the environment's tables are at {database.source_place}{only}")


def _dagster(settings: Settings, conn: Connection) -> Iterator[Diagnosis]:
    """Whether Dagster's database is there or can be made, and no pooler changes sessions before it."""
    name = "Dagster's database"
    if settings.database.dagster_url is not None:
        address = parse_address(settings.database.dagster_url, "DAGSTER_DATABASE_URL")

        def look() -> str:
            connect(address, autocommit=True).close()
            return address.place

        yield diagnose_by(name, look)
    elif settings.database.url is not None:
        yield _dagster_beside(name, conn)


def _dagster_beside(name: str, conn: Connection) -> Diagnosis:
    """The database that is made beside ours where Dagster's has no address of its own."""
    wanted = f"{conn.info.dbname}_dagster"
    row = conn.execute(
        """
        SELECT current_user, EXISTS (SELECT FROM pg_database WHERE datname = %s),
            (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user)
        """,
        [wanted],
    ).fetchone()
    assert row is not None
    role, is_there, may_create = row
    if is_there or may_create:
        return Diagnosis(name, f"{wanted} is there" if is_there else f"{role} may create {wanted}")
    return Diagnosis(
        name,
        f"{wanted} is not there, and {role} may not create it",
        f'have an administrator run: CREATE DATABASE "{wanted}" OWNER "{role}"; or set DAGSTER_DATABASE_URL',
    )


def _rights(settings: Settings, database: Database) -> Iterator[Diagnosis]:
    """What the settings let be written that the role may not write."""
    from babylon_assets.environments.registry import open_environment

    try:
        environment = open_environment(settings)
    except SettingsError:
        return  # the environment's own row says it
    with database.connect_source() as source:
        for sentence in environment.missing_rights(source):
            yield Diagnosis("rights", "a right is missing", sentence)
