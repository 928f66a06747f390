"""The system's PostgreSQL over TCP with a password, under a role that may do no more than it must."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.environments.babylon import game_record, schema
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger import checkpoints, datasets, inference_calls, training_jobs, trajectories, windows
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.database import Database, chain_lock, migrate, open_database
from tests.ledger.values import CHAIN, WINDOW, checkpoint, dataset, inference_call, record, root, sample, scores

PASSWORD = "tr@der/pässword %2"


@pytest.fixture(scope="module")
def game(system_postgres: Address) -> Address:
    """A database with the game's tables, owned by the game, and a role for us as the README has it made."""
    with psycopg.connect(system_postgres.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE game")
        conn.execute(sql.SQL("CREATE ROLE babylon LOGIN PASSWORD {}").format(PASSWORD))
    with psycopg.connect(system_postgres.at("game").conninfo()) as conn:
        create_game_tables(conn)
        conn.execute("CREATE SCHEMA babylon_training AUTHORIZATION babylon")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO babylon")
    return Address({**system_postgres.at("game").parameters, "user": "babylon", "password": PASSWORD})


@pytest.fixture(scope="module")
def database(game: Address) -> Database:
    opened = open_database(Settings(database_url=game.url("postgres")))
    assert migrate(opened) == migrate(opened)
    return opened


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    connection = database.connect()
    yield connection
    connection.close()


def test_it_is_not_the_embedded_server(conn: psycopg.Connection[Any], database: Database) -> None:
    assert not database.embedded
    row = conn.execute(
        "SELECT current_setting('server_version_num')::int / 10000, inet_server_addr() IS NULL"
    ).fetchone()
    assert row is not None
    assert row[0] >= 15
    assert row[1] is False


def test_the_whole_line_of_the_store_works_there(conn: psycopg.Connection[Any], database: Database) -> None:
    kept = dataset(sample(0), sample(1))
    trajectories.replace_window(conn, WINDOW, [record(0), record(1)], [])
    trajectories.replace_scores(conn, WINDOW, scores(), {"outcome": "1", "heuristic": "1"})
    inference_calls.insert_calls(conn, [inference_call(0)])
    datasets.save_dataset(conn, kept)
    checkpoints.ensure_root(conn, root())
    with chain_lock(database, CHAIN):
        job = training_jobs.start_job(conn, window=WINDOW, chain=CHAIN, parent_id=root().id, dataset_id=kept.id)
        made = checkpoint(1, WINDOW, kept.id)
        checkpoints.insert_checkpoint(conn, made)
        training_jobs.advance_job(conn, job.id, "trained", checkpoint_id=made.id)
    windows.upsert_window(conn, WINDOW, status="trained", dataset_id=kept.id, checkpoint_id=made.id)
    assert trajectories.read_window(conn, WINDOW) == [record(0), record(1)]
    assert len(trajectories.read_scores(conn, WINDOW)) == 3
    assert inference_calls.calls_by_id(conn, ["call-0"]) == {"call-0": inference_call(0)}
    assert datasets.load_dataset(conn, kept.id) == kept
    assert checkpoints.head(conn, CHAIN) == made
    conn.rollback()


def test_the_game_can_be_read_and_not_written(conn: psycopg.Connection[Any]) -> None:
    schema.check_tables(conn)
    assert game_record.list_windows(conn) == []
    for statement in ("DELETE FROM public.trajectories", "CREATE TABLE public.ours (n int)", "CREATE SCHEMA ours"):
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute(statement)
        conn.rollback()


def test_a_wrong_password_is_a_wrong_setting_and_is_not_repeated(game: Address) -> None:
    wrong = Address({**game.parameters, "password": "hunter2"})
    with pytest.raises(SettingsError, match=r"correct user and password in DATABASE_URL") as refused:
        open_database(Settings(database_url=wrong.url())).connect()
    assert "hunter2" not in str(refused.value)
