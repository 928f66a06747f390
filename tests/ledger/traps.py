"""Operators and functions that somebody else put into `public`, each a better fit for our columns than PostgreSQL's."""

from __future__ import annotations

from typing import Any

import psycopg

TRAPPED = "a trap was run"
_TEXTS = ("varchar", "text")
_OPERATORS = ("=", "<>", "~", "<", ">=", "||")


def plant_traps(conn: psycopg.Connection[Any], role: str, schema: str = "public") -> None:
    """Let a role that may create in a schema define operators and functions that raise when they run."""
    conn.execute(f"CREATE ROLE {role} NOLOGIN; GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}".encode())
    conn.execute(f"SET LOCAL ROLE {role}".encode())
    body = f"LANGUAGE plpgsql AS $$ BEGIN RAISE '{TRAPPED}'; END $$"
    for result in ("boolean", "text"):
        conn.execute(f"CREATE FUNCTION {schema}.trap_{result}(varchar, varchar) RETURNS {result} {body}".encode())
    for operator in _OPERATORS:
        result = "text" if operator == "||" else "boolean"
        conn.execute(
            f"CREATE OPERATOR {schema}.{operator} "
            f"(LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = {schema}.trap_{result})".encode()
        )
    for name, arguments in (
        *(("lower", "varchar"), ("length", "varchar"), ("octet_length", "varchar"), ("md5", "varchar")),
        *(("hashtext", "varchar"), ("starts_with", "varchar, varchar"), ("concat_ws", "varchar, varchar, varchar")),
        ("pg_try_advisory_lock", "smallint, int"),
    ):
        conn.execute(f"CREATE FUNCTION {schema}.{name}({arguments}) RETURNS text {body}".encode())
    conn.execute("RESET ROLE")
    conn.commit()
