"""Dagster's sessions: names are looked up in the catalogue alone, and its tables are found all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from sqlalchemy import text

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.database import Database, ensure_dagster_database
from babylon_assets.orchestration.runtime import open_instance, qualified_names
from babylon_assets.orchestration.runtime.event_log import EventLog, Storage
from tests.ledger.traps import plant_traps

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-03")


@dg.asset(partitions_def=DAYS)
def thing() -> None:
    pass


def connect(database: Database) -> psycopg.Connection[Any]:
    return psycopg.connect(database.dagster_url.replace("postgresql+psycopg2", "postgresql"))


@pytest.fixture
def trapped(database: Database, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an instance in whose database another role has put operators and functions of its own."""
    settings = Settings(home=tmp_path, database_url=database.url)
    open_instance(settings, database).dispose()
    role = f"{database.place.rpartition('/')[2]}_mallory"
    with connect(database) as conn:
        plant_traps(conn, role)
    yield settings
    with connect(database) as conn:
        conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def engines(storage: Storage) -> list[Any]:
    parts: list[Any] = [storage.run_storage, storage.event_log_storage, storage.schedule_storage]
    return [part._engine for part in parts]


def test_every_session_looks_names_up_in_the_catalogue_alone(database: Database, tmp_path: Path) -> None:
    open_instance(Settings(home=tmp_path, database_url=database.url), database).dispose()
    storage = Storage(database.dagster_url)
    plain = engines(storage)
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.optimize_for_webserver(statement_timeout=500, pool_recycle=100, max_overflow=1)
    for engine in (*plain, *engines(storage)):
        with engine.connect() as conn:
            assert conn.execute(text("SHOW search_path")).scalar() == "pg_catalog"
        engine.dispose()


def test_a_run_is_made_kept_and_found_past_the_traps(trapped: Settings, database: Database) -> None:
    with open_instance(trapped, database) as instance:
        result = dg.materialize([thing], instance=instance, partition_key="2026-11-01", tags={"why": "test"})
        assert result.success
        [run] = instance.get_runs(filters=dg.RunsFilter(run_ids=[result.run_id], tags={"why": "test"}))
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert instance.get_materialized_partitions(thing.key) == {"2026-11-01"}
        instance.add_dynamic_partitions("names", ["a"])
        assert instance.get_dynamic_partitions("names") == ["a"]
        assert instance.all_instigator_state() == []
        instance.wipe_assets([thing.key])
        instance.delete_run(result.run_id)


def test_tables_lie_in_the_schema_that_the_urls_own_options_name(database: Database, tmp_path: Path) -> None:
    open_instance(Settings(home=tmp_path, database_url=database.url), database).dispose()
    with connect(database) as conn:
        conn.execute("CREATE SCHEMA elsewhere")
    Storage(f"{database.dagster_url}&options=-c%20search_path%3Delsewhere")
    with connect(database) as conn:
        assert conn.execute("SELECT count(*) FROM elsewhere.runs").fetchone() == (0,)


#: From the revision of the pinned Dagster back to that of an older one.
OLDER = """
    ALTER TABLE public.concurrency_limits DROP COLUMN using_default_limit;
    UPDATE public.alembic_version SET version_num = '6b7fb194ff9c'"""
NEWER = """
    SELECT (SELECT version_num FROM public.alembic_version),
        EXISTS (SELECT 1 FROM information_schema.columns WHERE column_name = 'using_default_limit')"""


def test_dagsters_own_migration_brings_older_tables_up(database: Database, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database.url)
    open_instance(settings, database).dispose()
    with connect(database) as conn:
        before = conn.execute(NEWER).fetchone()
        for statement in OLDER.split(";"):
            conn.execute(statement.encode())
    with open_instance(settings, database) as instance:
        instance.upgrade()
        storage = instance.event_log_storage
        assert isinstance(storage, EventLog)
        with storage.engine.connect() as session:
            assert session.execute(text("SHOW search_path")).scalar() == "pg_catalog"
    with connect(database) as conn:
        assert conn.execute(NEWER).fetchone() == before


def test_a_migration_does_not_run_past_what_another_role_has_made(trapped: Settings, database: Database) -> None:
    with (
        open_instance(trapped, database) as instance,
        pytest.raises(SettingsError, match=r"the role '.*_mallory' has made .* have it dropped"),
    ):
        instance.upgrade()


#: A table of Dagster's, made before Dagster's own, which notes that it was written to.
FIRST = """
    CREATE ROLE {role} NOLOGIN;
    GRANT USAGE, CREATE ON SCHEMA public TO {role};
    CREATE SEQUENCE public.ran;
    SET LOCAL ROLE {role};
    CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM nextval('public.ran'); RETURN NEW; END $$;
    CREATE TRIGGER noting BEFORE INSERT ON public.alembic_version FOR EACH ROW EXECUTE FUNCTION public.note()"""


def test_a_table_that_another_role_made_first_is_not_written_to(database: Database, tmp_path: Path) -> None:
    settings, role = Settings(home=tmp_path, database_url=database.url), f"{database.place.rpartition('/')[2]}_mallory"
    ensure_dagster_database(settings)
    with connect(database) as conn:
        conn.execute(FIRST.format(role=role).encode())
    try:
        with pytest.raises(SettingsError, match=f"the role '{role}' has made .* alembic_version, .* have it dropped"):
            open_instance(settings, database)
        with connect(database) as conn:
            assert conn.execute("SELECT is_called FROM public.ran").fetchone() == (False,)
            conn.execute(f"DROP OWNED BY {role} CASCADE".encode())
        open_instance(settings, database).dispose()
        with connect(database) as conn:
            conn.execute(f"GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE public.runs OWNER TO {role}".encode())
        open_instance(settings, database).dispose()  # asked once a process
        qualified_names._OWN.clear()
        with pytest.raises(SettingsError, match=f"the role '{role}' has made the table runs"):
            open_instance(settings, database)
    finally:
        with connect(database) as conn:
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
