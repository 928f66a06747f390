"""Opening the database: the embedded server or the one in DATABASE_URL, the migration of our schema, and the locks.

Who runs what inside a connection is decided by the callers; our tables are in the other modules of this package.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import (
    DatabaseUnavailable,
    MissingDependency,
    PermanentError,
    SettingsError,
    TrainingBusy,
)
from babylon_assets.ledger import embedded_postgres
from babylon_assets.ledger.addresses import Address, parse_address
from babylon_assets.ledger.foreign_objects import refuse_foreign
from babylon_assets.ledger.sessions import Connection as Connection  # noqa: PLC0414 - known from here
from babylon_assets.ledger.sessions import connect as _connect
from babylon_assets.ledger.sessions import explained as _explained  # noqa: F401 - so is this
from babylon_assets.ledger.specification import TABLES
from babylon_assets.ledger.table import SCHEMA
from babylon_assets.ledger.waiting import HASHED, lock_holder, wait_for_lock, wait_for_transaction_lock

# Advisory locks are pairs of int4: a space of ours, then what is locked.
_MIGRATION_LOCK = (0x6261_6279, 0)
_GAME_LOCK = (0x6261_6267, 0)
_CHAIN_SPACE = 0x6261_6263
_WINDOW_SPACE = 0x6261_6277
_JUDGE_SPACE = 0x6261_626A
_TRY_TRANSACTION = "pg_try_advisory_xact_lock"
_NUMBER = "%s"
#: Where alembic notes which revision our tables are at.
_VERSIONS = "alembic_version"


@dataclass(frozen=True, slots=True, repr=False)
class Database:
    """A database that can be connected to. Its repr and its errors never show a password.

    Attributes:
        url: libpq URL of the database that holds our tables, and the environment's unless these lie elsewhere.
        dagster_url: SQLAlchemy URL (psycopg2) of Dagster's storage.
        embedded: whether the server is the embedded one.
    """

    url: str
    dagster_url: str
    embedded: bool
    _address: Address = field(compare=False)
    _source: Address | None = None

    def __repr__(self) -> str:
        source = f", source={self.source_place!r}" if self.is_apart else ""
        return f"Database({self.place!r}, embedded={self.embedded}{source})"

    @property
    def place(self) -> str:
        """Where it is, fit to be printed: `host:port/database`."""
        return self._address.place

    @property
    def is_apart(self) -> bool:
        """Whether the environment's tables are reached by another address than ours (LEDGER_DATABASE_URL)."""
        return self._source is not None and self._source != self._address

    @property
    def source_place(self) -> str:
        """Where the environment's tables are, fit to be printed."""
        return (self._source or self._address).place

    def connect_source(self) -> Connection:
        """As `connect`, to the database that the environment's tables lie in; it may be one that only reads."""
        return _connect(self._source or self._address, autocommit=False)

    @contextmanager
    def source_of(self, conn: Connection) -> Iterator[Connection]:
        """The environment's database beside a connection to ours: the same one, unless the two are apart.

        What is written there is committed at the end of the block, which is before `conn` commits.
        """
        if not self.is_apart:
            yield conn
            return
        with self.connect_source() as source:
            yield source

    def connect(self) -> Connection:
        """A new connection: autocommit off, TimeZone UTC, names looked up in `pg_catalog` alone.

        The caller closes it, best by `with`, which also commits or rolls back, and turns a lost connection into
        DatabaseUnavailable.

        Raises:
            SettingsError: when the server refuses the user, the password or the database.
            DatabaseUnavailable: when it does not answer.
        """
        return _connect(self._address, autocommit=False)

    def connect_autocommit(self) -> Connection:
        """As `connect`, each statement a transaction of its own: for locks that outlast transactions."""
        return _connect(self._address, autocommit=True)


def open_database(settings: Settings, *, begin: bool = True) -> Database:
    """The database that the settings name; the embedded server is created and started when it does not run yet.

    Of an external database nothing is opened or created here; `ensure_dagster_database` makes Dagster's beside it.

    Args:
        begin: whether an embedded server is created where the home has none.

    Raises:
        PermanentError: when the home has no embedded server and none is to be created.
        SettingsError: when DATABASE_URL, LEDGER_DATABASE_URL or DAGSTER_DATABASE_URL cannot be read.
        MissingDependency, DatabaseUnavailable: when the embedded server cannot be started.
    """
    source: Address | None = None
    if settings.database.url is None:
        if settings.database.ledger_url is not None:
            raise SettingsError(
                "LEDGER_DATABASE_URL is set and DATABASE_URL is not; set DATABASE_URL to the database of the game"
            )
        if not begin and not embedded_postgres.is_created(embedded_data(settings)):
            raise PermanentError(
                f"{settings.home.absolute()} holds no data and DATABASE_URL is not set; go to the folder where you "
                "began, set BABYLON_HOME, or begin here: `babylon up`, `babylon demo` for the simulated market, or "
                "`babylon migrate --begin` for a record of your own"
            )
        server = embedded_postgres.start(embedded_data(settings))
        _create_databases(server, "babylon", "dagster")
        address, dagster = server.at("babylon"), server.at("dagster")
    else:
        source, address = _source_address(settings), _ledger_address(settings)
        dagster = address.at(f"{address.database}_dagster")
    if settings.database.dagster_url is not None:
        dagster = parse_address(settings.database.dagster_url, "DAGSTER_DATABASE_URL")
    return Database(
        url=address.url(),
        dagster_url=dagster.url("postgresql+psycopg2"),
        embedded=settings.database.url is None,
        _address=address,
        _source=source,
    )


def _ledger_address(settings: Settings) -> Address:
    """Where our tables lie: beside the environment's, unless LEDGER_DATABASE_URL names another database."""
    if settings.database.ledger_url is not None:
        return parse_address(settings.database.ledger_url, "LEDGER_DATABASE_URL")
    return _source_address(settings)


def _source_address(settings: Settings) -> Address:
    """The address of the server itself, where DATABASE_URL leads through a pooler."""
    if settings.database.direct_url is not None:
        return parse_address(settings.database.direct_url, "DIRECT_DATABASE_URL")
    assert settings.database.url is not None
    return parse_address(settings.database.url, "DATABASE_URL")


def embedded_data(settings: Settings) -> Path:
    """The folder of the embedded server's data."""
    return settings.home / "postgres"


class WatchedDatabase:
    """A database that is looked after: the embedded server is started again when it is gone, another is asked."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database

    def revive(self) -> bool:
        """Start the embedded server again if it is gone; True when it was.

        Raises:
            DatabaseUnavailable: it does not come up; the end of its log is in the message.
        """
        if not self._database.embedded or embedded_postgres.is_running(embedded_data(self._settings)):
            return False
        embedded_postgres.start(embedded_data(self._settings))
        return True

    def answers(self) -> bool:
        """Whether it can be connected to now. Errors as of `Database.connect`, but for one that does not answer."""
        try:
            self._database.connect().close()
        except DatabaseUnavailable:
            return False
        return True


def stop_embedded(settings: Settings) -> bool:
    """Stop the embedded server of the settings' home; False when none was running."""
    return embedded_postgres.stop(embedded_data(settings))


def ensure_dagster_database(settings: Settings) -> None:
    """Create Dagster's database on the server of our tables when it is missing.

    Raises:
        SettingsError: when it is missing and the role may not create databases.
    """
    if settings.database.url is None or settings.database.dagster_url is not None:
        return
    address = _ledger_address(settings)
    name = f"{address.database}_dagster"
    try:
        _create_databases(address, name)
    except errors.InsufficientPrivilege:
        raise SettingsError(
            f"Dagster needs a database of its own and the role may not create it; have {name!r} created with this "
            "role as its owner, or set DAGSTER_DATABASE_URL"
        ) from None


def _create_databases(server: Address, *names: str) -> None:
    with _connect(server, autocommit=True) as conn:
        there = {name for (name,) in conn.execute("SELECT datname FROM pg_database")}
        for name in names:
            if name in there:
                continue
            # Two processes may both find it missing: the second one's error is the wanted state.
            with suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def migrate(database: Database, revision: str = "head") -> str:
    """Bring our schema up to a revision, by default the newest, and return the one it is at then.

    Safe to repeat and to run twice at once. Only the schema `babylon_training` is touched. An advisory lock makes the
    second caller wait; the whole way up is one transaction, so that a failure leaves the schema as it was.

    Raises:
        SettingsError: when the role may not create the schema, another role owns it or has made something in it, or a
            newer version made it.
    """
    from alembic import command
    from alembic.util import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine("postgresql+psycopg://", creator=database.connect, poolclass=NullPool)
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        wait_for_lock(driver, _TRY_TRANSACTION, _NUMBER, _MIGRATION_LOCK, "the right to migrate our tables")
        try:
            _create_schema(driver)
            refuse_foreign(driver.execute, SCHEMA, [*(table.name for table in TABLES), _VERSIONS], routines=True)
            command.upgrade(_alembic_config(connection), revision)
        except CommandError as error:
            raise SettingsError(f"{database.place}: {error}; install the newer babylon_assets that made it") from None
        except (errors.InsufficientPrivilege, DBAPIError) as error:
            refused = error.orig if isinstance(error, DBAPIError) else error
            if not isinstance(refused, errors.InsufficientPrivilege):
                raise
            raise SettingsError(
                f"{database.place}: {refused.diag.message_primary}; have a schema made for this role with "
                f"CREATE SCHEMA {SCHEMA} AUTHORIZATION <role>, then run babylon migrate again"
            ) from None
        row = driver.execute(f"SELECT version_num FROM {SCHEMA}.alembic_version").fetchone()
    return str(row[0])


def newest_revision() -> str | None:
    """The revision that `migrate` leads to."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head()


def _create_schema(conn: Connection) -> None:
    """CREATE SCHEMA IF NOT EXISTS asks for the right to create even where the schema exists; hence the look first.

    Raises:
        SettingsError: it belongs to a role that this one is no member of, and who could change what is in it.
    """
    row = conn.execute(_SCHEMA_OWNER, [SCHEMA]).fetchone()
    if row is None:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
        return
    owner, own, is_ours = row
    if not is_ours:
        raise SettingsError(
            f"the schema {SCHEMA} belongs to the role {owner!r}, who can change what is in it; have it given to this "
            f'role with ALTER SCHEMA {SCHEMA} OWNER TO "{own}", or rename it, then run babylon migrate again'
        )


#: The owner of a schema, this session's role, and whether that is the owner or was granted to it. A superuser counts
#: as a member of every role; here only what was granted counts.
_SCHEMA_OWNER = """
    SELECT pg_get_userbyid(n.nspowner), current_user, n.nspowner = r.oid OR EXISTS (
        SELECT 1 FROM pg_auth_members m WHERE m.roleid = n.nspowner AND m.member = r.oid)
    FROM pg_namespace n JOIN pg_roles r ON r.rolname = current_user WHERE n.nspname = %s"""


def _alembic_config(connection: object) -> Any:
    config = _config()
    config.attributes["connection"] = connection
    return config


def _config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations() -> Path:
    """The migrations: beside the package in a checkout, below the environment's `share` folder when installed."""
    beside = Path(__file__).parents[2] / "migrations"
    installed = Path(sysconfig.get_path("data")) / "share" / "babylon_assets" / "migrations"
    for folder in (beside, installed):
        if (folder / "env.py").is_file():
            return folder
    raise MissingDependency(
        f"the folder of migrations is in neither {beside} nor {installed}; reinstall babylon_assets"
    )


@contextmanager
def chain_lock(database: Database, chain: str) -> Iterator[None]:
    """Hold the right to extend a chain of checkpoints; one holder at a time over all processes and machines.

    A session-level advisory lock on a connection of its own is what holds it: when the process dies, even by kill -9,
    the server closes the session and the lock is free. The unique indexes of `model_checkpoints` stand behind it.

    Raises:
        TrainingBusy: when someone else holds it.
    """
    conn = database.connect_autocommit()
    lock = (_CHAIN_SPACE, chain)
    try:
        row = conn.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", lock).fetchone()
        if row is None or not row[0]:
            holder = lock_holder(conn, HASHED, lock)
            raise TrainingBusy(f"another run is training the chain {chain!r} ({holder}); try again when it is done")
        yield
    finally:
        _release(conn)


def _release(conn: Connection) -> None:
    """Give back a session's locks before the next one asks: closing alone, the server sees to it some time later."""
    try:
        conn.execute("SELECT pg_advisory_unlock_all()")
    except psycopg.OperationalError:
        # Without its server there is no session that could hold a lock; what failed before is the error to show.
        return
    finally:
        conn.close()


def game_lock(conn: Connection) -> None:
    """Wait for the exclusive right to play the simulated game; it ends with the transaction that `conn` is in."""
    wait_for_lock(conn, _TRY_TRANSACTION, _NUMBER, _GAME_LOCK, "the right to play the simulated game")


def window_lock(conn: Connection, window: str) -> None:
    """Wait for the exclusive right to write one window's rows; it ends with the transaction that `conn` is in."""
    wait_for_transaction_lock(conn, (_WINDOW_SPACE, window), f"the right to write the window {window}")


@contextmanager
def judge_lock(database: Database, window: str) -> Iterator[Connection]:
    """Wait for the right to have one window judged, so that nobody pays twice; yields a connection in autocommit.

    As with `chain_lock`, a session-level lock holds it, which ends with the process.
    """
    conn = database.connect_autocommit()
    try:
        what = f"the right to have the window {window} judged"
        wait_for_lock(conn, "pg_try_advisory_lock", HASHED, (_JUDGE_SPACE, window), what)
        yield conn
    finally:
        _release(conn)
