"""A home of so many windows: what was played, copied under earlier hours as often as it takes."""

from __future__ import annotations

from pathlib import Path

import psycopg

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database, embedded_data, migrate, open_database
from babylon_assets.ledger.window_length import check_window_length
from babylon_assets.ledger.windows import list_windows
from babylon_assets.orchestration.runtime import open_instance
from benchmarks.many_windows.ledger_rows import copy_rows, read_cycle
from benchmarks.many_windows.renaming import Copy
from benchmarks.many_windows.run_events import PlayedRuns

#: Copied runs last 12 s each; they begin when they were created.
_TIMES = """
UPDATE runs SET start_time = extract(epoch FROM create_timestamp), end_time = extract(epoch FROM create_timestamp) + 12
WHERE start_time IS NULL"""


def make_home(home: Path, count: int, played: Settings, source: Database) -> tuple[Settings, Database]:
    """The home of `count` windows, made if it is not there yet; its weights lie in the home of what was played."""
    settings = played.replace(home=home)
    database = open_database(settings)
    migrate(database)
    with database.connect() as conn:
        known = list_windows(conn)
    if not known:
        with database.connect() as conn:
            create_game_tables(conn)
        _fill(settings, database, count, played, source)
        with database.connect() as conn:
            known = list_windows(conn)
    if len(known) != count:
        raise SystemExit(f"{home} has {len(known)} windows in place of {count}; remove the folder")
    check_window_length(settings, database)
    return settings.replace(window_start=known[0].window_id), database


def _fill(settings: Settings, database: Database, count: int, played: Settings, source: Database) -> None:
    with open_instance(played, source) as instance:
        runs = PlayedRuns(instance)
    with source.connect() as conn, database.connect() as home:
        cycle = read_cycle(conn, checkpoints.chain(conn, played.model_name), runs.ids)
        number = count // len(cycle.windows)
        copies = [Copy(cycle, place, number) for place in range(number)]
        copy_rows(conn, home, copies)
    with open_instance(settings, database) as instance, connect_dagster(settings) as conn:
        conn.execute("ALTER DATABASE dagster SET synchronous_commit = off")
        runs.copy(instance, copies)
        conn.execute("ALTER DATABASE dagster RESET synchronous_commit")
        conn.execute(_TIMES)
        conn.execute("VACUUM ANALYZE")


def connect_dagster(settings: Settings) -> psycopg.Connection:
    """A connection to Dagster's own database in the home's server."""
    return psycopg.connect(f"host={embedded_data(settings)} user=postgres dbname=dagster", autocommit=True)
