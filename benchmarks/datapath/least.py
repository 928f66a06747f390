"""The least that must be done with a window: every row out by COPY, parsed by simdjson, and the same bytes in by COPY.

No row is checked, hashed, scored or compressed, and nothing is made of what was parsed. It reads and writes by psycopg,
as the product does, so that the difference is the work between.
"""

from __future__ import annotations

import simdjson

from babylon_assets.ledger.database import Database

_OUT = """
    COPY (SELECT "trajectoryId", "stepsJson" FROM public.trajectories WHERE "windowId" = %s)
    TO STDOUT (FORMAT binary)"""
_TABLE = "CREATE TEMP TABLE least (id text, body bytea); ALTER TABLE least ALTER COLUMN body SET STORAGE EXTERNAL"


def run(database: Database, window: str) -> None:
    """Copy a window's rows to a table without an index, having parsed each to its end."""
    parser = simdjson.Parser()
    with database.connect() as reading, database.connect() as writing:
        writing.execute(_TABLE)
        into = "COPY least FROM STDIN (FORMAT binary)"
        with reading.cursor().copy(_OUT, [window]) as rows, writing.cursor().copy(into) as kept:
            rows.set_types(["text", "bytea"])
            kept.set_types(["text", "bytea"])
            for name, text in rows.rows():
                parser.parse(text)
                kept.write_row((name, text))
