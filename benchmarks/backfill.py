"""A month of sparse windows, raw to dataset, as one backfill run of the data assets, orchestration included.

The run is made and recorded as the daemon makes it, on the project's own Dagster instance in PostgreSQL; what is timed
is from making the run to its end. Starting the process that a launched run gets is not in it: that is once per run.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Database, migrate, open_database, stop_embedded
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import open_instance
from benchmarks.datapath.rows import write_window
from benchmarks.report import Row, at_most

FIRST = "2026-10-05T00:00"
WINDOWS, TRAJECTORIES, STEPS = 720, 50, 2
DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def backfill_rows(installation: Installation, database: Database, windows: int = WINDOWS) -> list[Row]:
    """Play the windows, run the backfill, and run it once more on unchanged input."""
    keys = [FIRST]
    while len(keys) < windows:
        keys.append(HOURLY.next(keys[-1]))
    with database.connect() as conn:
        for window in keys:
            write_window(conn, window, TRAJECTORIES, STEPS)
    with database.connect_autocommit() as conn:
        conn.execute("ANALYZE")
    with open_instance(installation.settings, database) as instance:
        cpu = time.process_time()
        first = _run(installation, instance, keys)
        cpu = time.process_time() - cpu
        again = _run(installation, instance, keys)
        made = len(instance.get_materialized_partitions(dg.AssetKey(DATA[-1])))
    if made != windows:
        raise SystemExit(f"{made} of {windows} datasets were materialized")
    return [
        at_most(f"{windows} sparse windows as one backfill", first, "s", 60 * windows / WINDOWS),
        Row("  cpu of the run, without the server's", cpu, "s"),
        Row("  wall per window and asset", 1000 * first / windows / len(DATA), "ms"),
        Row("  once more, unchanged", again, "s"),
    ]


def _run(installation: Installation, instance: dg.DagsterInstance, keys: list[str]) -> float:
    definitions = build_definitions(installation.settings, installation=installation)
    job = definitions.resolve_implicit_job_def_def_for_assets([dg.AssetKey(name) for name in DATA])
    assert job is not None
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    started = time.perf_counter()
    result = job.execute_in_process(
        instance=instance, tags=tags, run_config=QUIET, asset_selection=[dg.AssetKey(name) for name in DATA]
    )
    assert result.success
    return time.perf_counter() - started


def main(windows: int) -> None:
    """Print the rows of a run of so many windows on a database of its own."""
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="babylon-backfill-")))
    try:
        database = open_database(settings)
        migrate(database)
        from babylon_assets.environments.babylon.game_tables import create_game_tables

        with database.connect() as conn:
            create_game_tables(conn)
        for row in backfill_rows(Installation(settings, database), database, windows):
            print(f"{row.name}: {row.value:.2f} {row.unit}")
    finally:
        stop_embedded(settings)
        shutil.rmtree(settings.home, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WINDOWS)
