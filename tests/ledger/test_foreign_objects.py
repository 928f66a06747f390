"""What of another role a table of ours may not run: whatever of it is called when a row is written or read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.foreign_objects import refuse_foreign

Conn = psycopg.Connection[Any]
MADE = """
    CREATE ROLE {role} NOLOGIN;
    CREATE SCHEMA shared;
    GRANT USAGE, CREATE ON SCHEMA shared TO {role};
    CREATE TABLE shared.ours (name text, number int);
    GRANT TRIGGER ON shared.ours TO {role};
    SET LOCAL ROLE {role};
    CREATE TABLE shared.theirs (name text);
    CREATE DOMAIN shared.word AS text;
    CREATE FUNCTION shared.same(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE OPERATOR shared.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq);
    CREATE FUNCTION shared.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    RESET ROLE"""
CALLED = {
    "CREATE VIEW shared.first AS SELECT 1 AS a; ALTER VIEW shared.first OWNER TO {role}": "the table first",
    """SET LOCAL ROLE {role}; CREATE TRIGGER noting BEFORE INSERT ON shared.ours FOR EACH ROW
        EXECUTE FUNCTION shared.note(); RESET ROLE""": "the function note of the table ours",
    "CREATE INDEX odd ON shared.ours (shared.same(name))": "the function same of the table ours",
    "CREATE INDEX odd ON shared.ours (number) WHERE shared.same(name) = 'a'": "the function same of the table ours",
    "ALTER TABLE shared.ours ALTER name SET DEFAULT shared.same('a')": "the function same of the table ours",
    "ALTER TABLE shared.ours ADD CHECK (shared.same(name) = 'a')": "the function same of the table ours",
    "CREATE RULE odd AS ON DELETE TO shared.ours DO SELECT shared.same('a')": "the function same of the table ours",
    "CREATE POLICY odd ON shared.ours USING (name OPERATOR(shared.===) 'a')": "the operator === of the table ours",
    "ALTER TABLE shared.ours ADD odd shared.word": "the type word of the table ours",
}


@pytest.fixture
def role(conn: Conn) -> Iterator[str]:
    """A role that may create where a table of ours is, and has; the whole of it is rolled back."""
    name = f"{conn.info.dbname}_mallory"
    conn.execute(MADE.format(role=name).encode())
    yield name
    conn.rollback()


def look(conn: Conn, *, routines: bool = False) -> None:
    refuse_foreign(conn.execute, "shared", ["ours", "first"], routines=routines)


@pytest.mark.parametrize(("statement", "what"), CALLED.items(), ids=range(len(CALLED)))
def test_what_a_table_runs_of_another_role_is_refused_unless_that_role_was_granted(
    conn: Conn, role: str, statement: str, what: str
) -> None:
    look(conn)  # what no table of ours calls is left alone
    conn.execute(statement.format(role=role).encode())
    with pytest.raises(
        SettingsError, match=f"in the schema shared the role '{role}' has made {what}, .* have it dropped"
    ):
        look(conn)
    conn.execute(f"GRANT {role} TO CURRENT_USER".encode())
    look(conn)


def test_where_names_are_looked_up_nothing_of_another_role_may_be_called(conn: Conn, role: str) -> None:
    with pytest.raises(SettingsError, match="has made the function note in the schema"):
        look(conn, routines=True)
