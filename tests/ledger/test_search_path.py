"""What another role defines in `public` is never taken for PostgreSQL's own by a session of ours."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.environments.babylon import schema
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.database import (
    Database,
    chain_lock,
    judge_lock,
    migrate,
    newest_revision,
    open_database,
    window_lock,
)
from tests.domain.rows import WINDOW
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.ledger.traps import TRAPPED, plant_traps
from tests.servers import Server


@pytest.fixture
def trapped(game_database: Database, server: Server) -> Iterator[Database]:
    """A database in whose `public` a role with the right to create has put its own operators and functions."""
    role = f"{game_database.place.rpartition('/')[2]}_mallory"
    with game_database.connect() as conn:
        plant_traps(conn, role)
    yield game_database
    with game_database.connect() as conn:
        conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_the_traps_catch_who_looks_names_up_in_public(trapped: Database) -> None:
    with psycopg.connect(trapped.url) as conn, pytest.raises(psycopg.errors.RaiseException, match=TRAPPED):
        conn.execute("SELECT 'a'::varchar = 'a'::varchar")


def test_every_way_to_connect_looks_names_up_in_the_catalogue_alone(trapped: Database) -> None:
    for connect in (trapped.connect, trapped.connect_autocommit):
        with connect() as conn:
            assert conn.execute("SHOW search_path").fetchone() == ("pg_catalog",)


def test_a_search_path_in_the_url_changes_nothing(trapped: Database) -> None:
    given = Settings(database_url=f"{trapped.url}&options=-c%20search_path%3Dpublic")
    with open_database(given).connect() as conn:
        assert conn.execute("SHOW search_path").fetchone() == ("pg_catalog",)


def test_the_record_of_the_game_is_read_past_the_traps(trapped: Database) -> None:
    environment = open_environment(Settings(environment="babylon"))
    with trapped.connect() as conn:
        add_users(conn, "a1")
        add_trajectories(conn, trajectory("t1"))
        schema.check_tables(conn)
        assert [row.window for row in environment.list_windows(conn)] == [WINDOW]
        assert environment.presence(conn, [WINDOW])
        assert environment.fingerprint(conn, WINDOW, ["m1"])


def test_our_tables_are_made_and_locked_past_the_traps(trapped: Database) -> None:
    with trapped.connect() as conn:
        conn.execute("DROP SCHEMA babylon_training CASCADE")
    assert migrate(trapped) == newest_revision()
    with chain_lock(trapped, "c"), judge_lock(trapped, "w"), trapped.connect() as conn:
        window_lock(conn, "w")


def test_a_schema_of_another_role_is_not_migrated_into(empty_database: Database) -> None:
    role = f"{empty_database.place.rpartition('/')[2]}_owner"
    with empty_database.connect() as conn:
        conn.execute(f"CREATE ROLE {role}; CREATE SCHEMA babylon_training AUTHORIZATION {role}".encode())
    try:
        with pytest.raises(SettingsError, match=f"belongs to the role '{role}'.*ALTER SCHEMA"):
            migrate(empty_database)
        with empty_database.connect() as conn:
            row = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'babylon_training'").fetchone()
            assert row == (0,)
            conn.execute(f"GRANT {role} TO CURRENT_USER".encode())
        assert migrate(empty_database) == newest_revision()
    finally:
        with empty_database.connect() as conn:
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


#: What a role with CREATE on our schema may have made there before we migrate.
FIRST = {
    "the table alembic_version": """
        CREATE TABLE babylon_training.alembic_version (version_num varchar(32) PRIMARY KEY);
        CREATE FUNCTION babylon_training.note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM nextval('public.ran'); RETURN NEW; END $$;
        CREATE TRIGGER noting BEFORE INSERT ON babylon_training.alembic_version
            FOR EACH ROW EXECUTE FUNCTION babylon_training.note()""",
    "the function refuse_change in the schema": """
        CREATE FUNCTION babylon_training.refuse_change(text) RETURNS text LANGUAGE sql AS 'SELECT $1'""",
}


@pytest.mark.parametrize("what", FIRST)
def test_what_another_role_made_in_our_schema_is_not_migrated_into(empty_database: Database, what: str) -> None:
    role = f"{empty_database.place.rpartition('/')[2]}_mallory"
    with empty_database.connect() as conn:
        conn.execute(
            f"CREATE ROLE {role}; CREATE SCHEMA babylon_training; CREATE SEQUENCE public.ran; "
            f"GRANT USAGE, CREATE ON SCHEMA babylon_training TO {role}; SET LOCAL ROLE {role}; {FIRST[what]}".encode()
        )
    try:
        with pytest.raises(SettingsError, match=f"the role '{role}' has made the .* have it dropped"):
            migrate(empty_database)
        with empty_database.connect() as conn:
            assert conn.execute("SELECT is_called FROM public.ran").fetchone() == (False,)
    finally:
        with empty_database.connect() as conn:
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
