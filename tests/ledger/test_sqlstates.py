"""What passes by itself is tried again; what a person must put right is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from typer.testing import CliRunner

from babylon_assets.cli import app as command
from babylon_assets.domain.errors import DatabaseUnavailable, PermanentError, SettingsError, TransientError
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.orchestration.runtime import failures


@pytest.mark.parametrize(
    "sqlstate",
    [
        *("57014", "55P03", "40001", "40P01", "53100", "53200", "53300", "57P01", "57P02", "57P03", "25006"),
        *("08000", "08003", "08006", "58030", "25P03", "25P04", "40003", "55006", "57P05", "HV00N"),
    ],
)
def test_what_passes(sqlstate: str) -> None:
    assert isinstance(named_error(_raised_with(sqlstate)), TransientError)


@pytest.mark.parametrize("sqlstate", ["28P01", "3D000", "42501", "42601", "42P01", "22003", "23505", "XX000", "25001"])
def test_what_does_not_pass(sqlstate: str) -> None:
    named = named_error(_raised_with(sqlstate))
    assert named is not None
    assert not isinstance(named, TransientError)


def _raised_with(sqlstate: str) -> psycopg.Error:
    error = psycopg.Error("the server's line")
    error.sqlstate = sqlstate
    return error


RAISED: list[tuple[str, type[Exception], str]] = [
    ("SET statement_timeout = 1; SELECT pg_sleep(1)", DatabaseUnavailable, "57014"),
    ("SET TRANSACTION READ ONLY; CREATE TABLE public.t (n int)", DatabaseUnavailable, "25006"),
    ("SELECT * FROM babylon_training.nothing", SettingsError, "babylon migrate"),
    ("SELECT 1 / 0", PermanentError, "22012"),
]


@pytest.mark.parametrize(("statement", "kind", "text"), RAISED)
def test_what_the_server_raises_is_named(database: Database, statement: str, kind: type[Exception], text: str) -> None:
    with database.connect() as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute(statement.encode())
    named = named_error(raised.value)
    assert type(named) is kind
    assert text in str(named)


def test_dagsters_driver_is_understood_through_sqlalchemy_and_a_row_is_not_quoted(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as conn, pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        conn.execute(sqlalchemy.text("CREATE TEMP TABLE t (name text PRIMARY KEY)"))
        conn.execute(sqlalchemy.text("INSERT INTO t VALUES ('hunter2'), ('hunter2')"))
    engine.dispose()
    wrapped = RuntimeError("dagster says so")
    wrapped.__cause__ = raised.value
    named = named_error(wrapped)
    assert isinstance(named, PermanentError)
    assert "23505" in str(named) and "hunter2" not in str(named)
    assert named_error(RuntimeError("of somebody else")) is None


def test_a_lock_that_was_not_to_be_had_in_time_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_WAIT_SECONDS", 0)
    attempts = iter([psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure, None])
    warnings: list[str] = []

    def work() -> str:
        if (kind := next(attempts)) is not None:
            raise kind
        return "done"

    assert failures.attempt(work, warnings.append) == "done"
    assert len(warnings) == 2


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def fail(error: Exception) -> Any:
        monkeypatch.setattr("babylon_assets.cli.list_windows.opened", lambda *_: (_ for _ in ()).throw(error))
        return CliRunner().invoke(command.app, ["windows"])

    yield fail


@pytest.mark.parametrize(
    ("error", "code"),
    [(psycopg.errors.DeadlockDetected("x"), 75), (psycopg.errors.InsufficientPrivilege("x"), 1)],
)
def test_a_command_ends_with_a_sentence_and_not_with_a_traceback(failing: Any, error: Exception, code: int) -> None:
    result = failing(error)
    assert result.exit_code == code
    assert "PostgreSQL: x" in result.output
    assert "Traceback" not in result.output
    assert issubclass(DatabaseUnavailable, TransientError)
