"""The data path: from the game's rows to a frozen dataset, beside the plain way and beside the least that must be done.

All run on the same rows, in turns, on one embedded server; cpu is that of this process, the server's is its own. The
plain way is in `datapath.plain`: asyncpg, `json.loads`, loops. The least is in `datapath.least`: COPY out, simdjson,
COPY in. Figures without a goal are only reported.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger.database import migrate, open_database, stop_embedded
from babylon_assets.orchestration.resources import Installation
from benchmarks.backfill import backfill_rows
from benchmarks.datapath.listing import listing
from benchmarks.datapath.memory import memory
from benchmarks.datapath.mutated import mutated
from benchmarks.datapath.rows import following, write_window
from benchmarks.datapath.scoring import scoring
from benchmarks.datapath.side import side_by_side
from benchmarks.report import Row, publish

FIRST, WINDOWS = "2026-10-01T00:00", 10


def main() -> None:
    """Run the bench, or those of its parts that are named."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(home=Path(scratch))
        try:
            rows = _rows(own, sys.argv[1:])
        finally:
            stop_embedded(own)
            shutil.rmtree(own.home / "postgres", ignore_errors=True)
    publish("data", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(settings: Settings, wanted: list[str]) -> list[Row]:
    database = open_database(settings)
    migrate(database)
    installation = Installation(settings, database)
    windows = following(FIRST, WINDOWS)
    with database.connect() as conn:
        create_game_tables(conn)
        for window in windows:
            write_window(conn, window)
    with database.connect_autocommit() as conn:
        conn.execute("VACUUM ANALYZE")
    parts: dict[str, Callable[[], list[Row]]] = {
        "side": lambda: side_by_side(installation, database, FIRST),
        "memory": lambda: memory(settings, windows),
        "scoring": scoring,
        "backfill": lambda: backfill_rows(installation, database),
        "mutated": lambda: mutated(database),
        "listing": lambda: listing(database),
    }
    rows: list[Row] = []
    for name, part in parts.items():
        if not wanted or name in wanted:
            found = part()
            print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in found), sep="\n", flush=True)
            rows += found
    return rows


if __name__ == "__main__":
    main()
