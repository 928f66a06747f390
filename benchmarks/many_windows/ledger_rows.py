"""The rows of the played windows under other hours: read from one database and written to another, as text.

A copy's rows are those of the played windows, renamed, with their times moved as its hours are. Compressed bodies are
copied as they are, so that each row is as large as a real one; ids within them are those of the played window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection
from benchmarks.many_windows.renaming import Copy, Cycle

#: What changes from copy to copy in another way than its name.
_EXPRESSIONS = {
    ("model_checkpoints", "step"): "step + {more_steps}",
    ("inference_calls", "policy_step"): "policy_step + {more_steps}",
    ("inference_calls", "call_id"): "call_id || '-{place}'",
    ("promotions", "from_id"): "coalesce(from_id, '{root}')",
}
#: Of the root the chain has one.
_ROOT_ONCE = {"model_checkpoints": "step > 0", "checkpoint_evaluations": "checkpoint_id <> '{root}'"}
#: The game's tables that have a row of every window; the others are copied once.
_RECORD = ("trajectories", "market_outcomes")
#: No page reads them: the windows of the newest week alone have them.
_NEWEST_TABLE, _NEWEST_COLUMN = "inference_calls", "stepsJson"
_NEWEST = 168
_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = %s AND table_name = %s AND is_identity = 'NO' AND is_generated = 'NEVER'
ORDER BY ordinal_position"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'alembic_version' ORDER BY 1"


def read_cycle(conn: Connection, chain: list[Checkpoint], runs: list[str]) -> Cycle:
    """What was played, as the ledger has it."""
    windows = [row[0] for row in conn.execute("SELECT window_id FROM babylon_training.windows ORDER BY 1")]
    datasets = [row[0] for row in conn.execute("SELECT id FROM babylon_training.training_datasets ORDER BY 1")]
    return Cycle(windows, chain, datasets, runs)


def copy_rows(played: Connection, home: Connection, copies: list[Copy]) -> None:
    """All tables of the copies, in the home's database, whose tables are there and empty."""
    home.execute("SET session_replication_role = replica")  # references and triggers hold for what was played
    for schema, table in _list_tables(played):
        columns = played.execute(_COLUMNS, [schema, table]).fetchall()
        for copy in copies if _is_of_windows(schema, table) else copies[-1:]:
            if table == _NEWEST_TABLE and not _is_new(copy):
                continue
            _copy_table(played, home, f'{schema}."{table}"', _select(schema, table, columns, copy), columns, copy)
    home.commit()
    home.autocommit = True
    home.execute("VACUUM ANALYZE")


def _list_tables(conn: Connection) -> Iterator[tuple[str, str]]:
    for schema in ("public", "babylon_training"):
        for (table,) in conn.execute(_TABLES, [schema]).fetchall():
            yield schema, table


def _is_of_windows(schema: str, table: str) -> bool:
    return schema == "babylon_training" or table in _RECORD


def _is_new(copy: Copy) -> bool:
    return (copy.count - copy.place) * len(copy.cycle.windows) <= _NEWEST


def _select(schema: str, table: str, columns: list[Any], copy: Copy) -> str:
    """What a copy has of a table."""
    given = {"more_steps": copy.more_steps, "place": copy.place, "root": copy.cycle.root.id}
    chosen = []
    for name, kind in columns:
        if (table, name) in _EXPRESSIONS and not (name == "from_id" and copy.place == 0):
            chosen.append(_EXPRESSIONS[table, name].format(**given))
        elif name == _NEWEST_COLUMN and not _is_new(copy):
            chosen.append("'[]'")
        elif kind.startswith("timestamp"):
            chosen.append(f"\"{name}\" - interval '{copy.earlier.total_seconds():.0f} s'")
        else:
            chosen.append(f'"{name}"')
    rest = f" WHERE {_ROOT_ONCE[table].format(**given)}" if table in _ROOT_ONCE and copy.place else ""
    order = " ORDER BY id" if table in ("promotions", "training_jobs") else ""
    return f'SELECT {", ".join(chosen)} FROM {schema}."{table}"{rest}{order}'


def _copy_table(played: Connection, home: Connection, table: str, query: str, columns: list[Any], copy: Copy) -> None:
    names = ", ".join(f'"{name}"' for name, _ in columns)
    with played.cursor() as reading, home.cursor() as writing:
        with reading.copy(f"COPY ({query}) TO STDOUT".encode()) as rows:
            text = b"".join(rows).decode()
        if text:
            with writing.copy(f"COPY {table} ({names}) FROM STDIN".encode()) as into:
                into.write(copy.rename(text).encode())
