"""Opening, migrating and locking: repeatable, careful with what is not ours, and clear when refused."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable, SettingsError, TrainingBusy
from babylon_assets.ledger import compression, specification, waiting
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.checkpoints import lock_line
from babylon_assets.ledger.database import (
    _MIGRATION_LOCK,
    Connection,
    Database,
    chain_lock,
    ensure_dagster_database,
    migrate,
    newest_revision,
    open_database,
    window_lock,
)
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.ledger.late_samples import late_lock
from babylon_assets.ledger.sessions import explained
from tests.ledger.values import inference_call
from tests.servers import Server

HOLD = """
import sys
from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import chain_lock, open_database
with chain_lock(open_database(Settings(database_url=sys.argv[1])), "c"):
    print("held", flush=True)
    sys.stdin.read()
"""


MIGRATE = """
import sys
from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import migrate, open_database
database = open_database(Settings(database_url=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(migrate(database))
"""


def catalogue(database: Database) -> list[Any]:
    """Everything outside our schema that a migration could have touched."""
    with database.connect() as conn:
        return conn.execute(
            """
            SELECT n.nspname, c.relname, c.relkind::text, c.relacl::text, c.oid::text FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'babylon_training')
            UNION ALL SELECT 'schema', nspname, '', nspacl::text, oid::text FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'babylon_training'
            UNION ALL SELECT 'extension', extname, '', '', '' FROM pg_extension
            UNION ALL SELECT 'function', proname, '', '', '' FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2
            """
        ).fetchall()


def ours(database: Database) -> list[Any]:
    with database.connect() as conn:
        rows = conn.execute("SELECT oid FROM pg_class WHERE relnamespace = 'babylon_training'::regnamespace ORDER BY 1")
        return rows.fetchall()


def test_a_connection_speaks_utc_and_waits_for_a_commit(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("ALTER ROLE CURRENT_USER SET timezone = 'Asia/Kolkata'")
    try:
        with database.connect() as conn:
            assert conn.execute("SHOW TimeZone").fetchone() == ("UTC",)
            assert not conn.autocommit
            conn.rollback()
            assert conn.execute("SHOW TimeZone").fetchone() == ("UTC",)
    finally:
        with psycopg.connect(database.url, autocommit=True) as conn:
            conn.execute("ALTER ROLE CURRENT_USER RESET timezone")


def test_a_server_that_goes_away_in_the_middle_is_a_transient_failure(database: Database) -> None:
    def work(statements: list[str]) -> None:
        with database.connect() as conn:
            conn.execute("CREATE TABLE public.half_done (n int)")
            with database.connect_autocommit() as other:
                other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
            for statement in statements:
                conn.execute(statement.encode())

    for statements in (["SELECT 1"], []):
        with pytest.raises(DatabaseUnavailable, match="was lost"):
            work(statements)
    with database.connect() as conn:
        assert conn.execute("SELECT to_regclass('half_done')").fetchone() == (None,)


def test_an_error_of_ones_own_stays_what_it_is(database: Database) -> None:
    with pytest.raises(psycopg.errors.LockNotAvailable), database.connect() as conn, database.connect() as other:
        other.execute("LOCK babylon_training.windows")
        conn.execute("LOCK babylon_training.windows NOWAIT")


def test_options_in_the_url_are_kept(database: Database) -> None:
    options = Settings(database_url=f"{database.url}&options=-c%20work_mem%3D7MB%20-c%20timezone%3DAsia/Kolkata")
    with open_database(options).connect() as conn:
        assert conn.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert conn.execute("SHOW TimeZone").fetchone() == ("UTC",)


def test_migrating_an_empty_database_twice_changes_nothing_the_second_time(empty_database: Database) -> None:
    before = catalogue(empty_database)
    revision = migrate(empty_database)
    made = ours(empty_database)
    assert migrate(empty_database) == revision
    assert ours(empty_database) == made
    assert catalogue(empty_database) == before


def test_tables_of_others_in_public_are_left_alone(empty_database: Database) -> None:
    with empty_database.connect() as conn:
        conn.execute('CREATE TABLE public.windows (id int); CREATE TABLE public."User" (id text PRIMARY KEY)')
        conn.execute("CREATE TABLE public.alembic_version AS SELECT 'x'::varchar(32) AS version_num")
    before = catalogue(empty_database)
    migrate(empty_database)
    assert catalogue(empty_database) == before
    with empty_database.connect() as conn:
        assert conn.execute("SELECT version_num FROM public.alembic_version").fetchone() == ("x",)


def test_migrating_from_two_processes_at_once_is_the_same_as_once(empty_database: Database) -> None:
    command = [sys.executable, "-c", MIGRATE, empty_database.url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        revisions = {process.communicate()[0] for process in (one, other)}
    assert (one.returncode, other.returncode) == (0, 0)
    assert revisions == {migrate(empty_database) + "\n"}


def test_answers_kept_as_text_by_an_earlier_version_stay_what_they_were(empty_database: Database) -> None:
    migrate(empty_database, "0001")
    call = inference_call(0, response="kauf “jetzt” … \\x41")
    later = ("messages", "response", "sampling", "key_name", "received_at", "tools", "tool_calls")
    columns = [name for name in specification.INFERENCE_CALLS.columns if name not in later]
    values = {name: getattr(call, name) for name in columns}
    values |= {"messages": compression.pack(msgspec.json.encode(call.messages)), "response": call.response}
    with empty_database.connect() as conn:
        conn.execute(specification.INFERENCE_CALLS.insert(values), values)
    assert migrate(empty_database) == newest_revision()
    with empty_database.connect() as conn:
        assert calls_by_id(conn, [call.call_id]) == {call.call_id: call}


def test_migrating_waits_for_whoever_migrates(empty_database: Database) -> None:
    with empty_database.connect() as conn, ThreadPoolExecutor(1) as pool:
        conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", _MIGRATION_LOCK)
        second = pool.submit(migrate, empty_database)
        with pytest.raises(TimeoutError):
            second.result(timeout=1)
        conn.commit()
        assert second.result(timeout=30) == migrate(empty_database)


def test_a_migration_that_fails_leaves_nothing_behind(empty_database: Database) -> None:
    with empty_database.connect() as conn:
        conn.execute("CREATE SCHEMA babylon_training CREATE TABLE promotions (mine int)")
    with pytest.raises(Exception, match="promotions"):
        migrate(empty_database)
    assert len(ours(empty_database)) == 1


def test_a_schema_of_a_newer_version_is_refused(database: Database) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE babylon_training.alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match=r"9999.*install the newer babylon_assets"):
        migrate(database)


def test_a_role_that_may_not_create_the_schema_is_told_what_to_ask_for(
    server: Server, empty_database: Database
) -> None:
    name = empty_database.place.rpartition("/")[2]
    server.execute("CREATE ROLE {} LOGIN", f"{name}_weak")
    weak = dataclasses.replace(
        server.address.at(name), parameters={**server.address.at(name).parameters, "user": f"{name}_weak"}
    )
    try:
        with pytest.raises(SettingsError, match="CREATE SCHEMA babylon_training AUTHORIZATION"):
            migrate(open_database(Settings(database_url=weak.url())))
        with pytest.raises(SettingsError, match=f"'{name}_dagster'.*DAGSTER_DATABASE_URL"):
            ensure_dagster_database(Settings(database_url=weak.url()))
    finally:
        server.execute("DROP ROLE {}", f"{name}_weak")


def test_dagsters_database_is_made_beside_an_external_one(database: Database) -> None:
    settings = Settings(database_url=database.url)
    for _ in range(2):
        ensure_dagster_database(settings)
    from sqlalchemy import create_engine, text

    engine = create_engine(open_database(settings).dagster_url)
    with engine.connect() as conn:
        assert (
            conn.execute(text("SELECT current_database()")).scalar() == f"{database.place.rpartition('/')[2]}_dagster"
        )
    engine.dispose()


def test_dagsters_database_can_be_given(database: Database) -> None:
    settings = Settings(database_url=database.url, dagster_database_url="postgres://u:p%40@h:1/other")
    assert open_database(settings).dagster_url == "postgresql+psycopg2://u:p%40@/other?host=h&port=1"
    ensure_dagster_database(settings)  # it is the user's: nothing connects to it


def test_a_server_that_is_not_there_is_unavailable_and_the_password_stays_hidden() -> None:
    database = open_database(Settings(database_url="postgresql://trader:hunter2@127.0.0.1:1/game?connect_timeout=2"))
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1/game does not answer") as refused:
        database.connect()
    assert "hunter2" not in str(refused.value) + repr(database)
    assert "Connection refused; start PostgreSQL there" in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ('FATAL: password authentication failed for user "u"', SettingsError),
        ("fe_sendauth: no password supplied", SettingsError),
        ('FATAL: no pg_hba.conf entry for host "h", user "u", database "d", no encryption', SettingsError),
        ('FATAL: role "u" does not exist', SettingsError),
        ('FATAL: role "u" is not permitted to log in', SettingsError),
        ('FATAL: permission denied for database "d"', SettingsError),
        ("FATAL: canceling authentication due to timeout", DatabaseUnavailable),
        (
            "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute",
            DatabaseUnavailable,
        ),
        ("FATAL: the database system is starting up", DatabaseUnavailable),
        ('on socket "/srv/roles/password/.s.PGSQL.5432" failed: No such file or directory', DatabaseUnavailable),
        ("FATAL: sorry, too many clients already", DatabaseUnavailable),
    ],
)
def test_only_what_a_person_must_put_right_is_a_wrong_setting(told: str, kind: type[Exception]) -> None:
    address = Address({"host": "h", "user": "u", "password": "hunter2", "dbname": "d"})
    error = explained(address, psycopg.OperationalError(f"connection to server failed: {told} hunter2"))
    assert type(error) is kind
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("place", ["a..b", f"{'a' * 64}.example", "127.0.0.1:99999", "127.0.0.1?service=nowhere"])
def test_an_address_that_leads_nowhere_is_a_wrong_setting(place: str) -> None:
    host, _, query = place.partition("?")
    with pytest.raises(
        SettingsError, match=r"correct DATABASE_URL|a port that is no number from 1 to 65535"
    ) as refused:
        open_database(Settings(database_url=f"postgresql://u:hunter2@{host}/d?{query}")).connect()
    assert "hunter2" not in str(refused.value)


def test_a_server_without_a_free_place_is_tried_again(server: Server, database: Database) -> None:
    name = database.place.rpartition("/")[2]
    server.execute("CREATE ROLE {} LOGIN", f"{name}_guest")
    server.execute("ALTER DATABASE {} CONNECTION LIMIT 0", name)
    guest = Address({**server.address.at(name).parameters, "user": f"{name}_guest"})
    try:
        with pytest.raises(DatabaseUnavailable, match="too many connections"):
            open_database(Settings(database_url=guest.url())).connect()
    finally:
        server.execute("DROP ROLE {}", f"{name}_guest")


def test_a_database_that_does_not_exist_is_a_wrong_setting(database: Database) -> None:
    missing = open_database(Settings(database_url=database.url.replace("/test_", "/missing_")))
    with pytest.raises(SettingsError, match=r"does not exist.*create the database or correct DATABASE_URL"):
        missing.connect()


def test_one_holder_of_a_chain_at_a_time(database: Database) -> None:
    with chain_lock(database, "c"):
        with pytest.raises(TrainingBusy, match="'c'"), chain_lock(database, "c"):
            pass
        with chain_lock(database, "another chain"):
            pass
    with chain_lock(database, "c"):
        pass


def test_a_chain_is_free_again_after_an_error(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), chain_lock(database, "c"):
        raise ZeroDivisionError
    with chain_lock(database, "c"):
        pass


def test_kill_9_of_the_holder_frees_the_chain(database: Database) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, database.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingBusy), chain_lock(database, "c"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        wait_until_free(database)
    with chain_lock(database, "c"):
        pass


def wait_until_free(database: Database) -> None:
    """Until the server has noticed that its client is gone, at most ten seconds."""
    with database.connect_autocommit() as conn:
        for _ in range(1000):
            if conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,):
                return
            conn.execute("SELECT pg_sleep(0.01)")


def test_a_window_is_locked_to_the_end_of_the_transaction(database: Database) -> None:
    entered = threading.Event()

    def second() -> None:
        with database.connect() as conn:
            window_lock(conn, "w")
            entered.set()

    with database.connect() as conn:
        window_lock(conn, "w")
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
        conn.commit()
        assert entered.wait(10)
    thread.join()


@pytest.mark.parametrize(
    ("lock", "right"),
    [
        (window_lock, "to write the window w"),
        (late_lock, "to share out the late samples of w"),
        (lock_line, "to change the line of w"),
    ],
)
def test_a_wait_for_a_lock_says_for_whom_and_is_ended_by_its_release(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lock: Callable[[Connection, str], None],
    right: str,
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    with database.connect() as holder, database.connect() as conn, ThreadPoolExecutor(1) as pool:
        lock(holder, "w")
        second = pool.submit(lock, conn, "w")
        for _ in range(500):
            if caplog.records:
                break
            time.sleep(0.01)
        session = f"session {holder.info.backend_pid} of babylon from this machine since 20"
        assert f"waiting for the right {right}, which {session}" in caplog.text
        holder.commit()
        second.result(timeout=10)


def test_who_holds_a_chain_is_named(database: Database) -> None:
    busy = pytest.raises(TrainingBusy, match=r"session \d+ of babylon")
    with chain_lock(database, "c"), busy, chain_lock(database, "c"):
        pass
