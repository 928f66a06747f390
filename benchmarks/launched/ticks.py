"""What a tick of each sensor costs in a year of hours with a million trajectories, on a Dagster instance in PostgreSQL.

The states differ in what the ledger knows: all is done, all is done and the cursor was lost, nothing was ever done,
the same and every hour is thin, everything has changed, everything has failed. What a tick asks for is not carried out.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.assets.raw_trajectories import fingerprint_now
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import open_instance
from babylon_assets.orchestration.sensors import COMPARED
from benchmarks.datapath.listing import TRAJECTORIES, WINDOWS, fill
from benchmarks.datapath.rows import following
from benchmarks.report import Row, at_most

GOAL_SECONDS = 1.0
_DONE = """INSERT INTO babylon_training.windows (window_id, status, fingerprint)
    SELECT unnest(%s::text[]), 'trained', 'of the year'"""


def ticks(settings: Settings, database: Database) -> list[Row]:
    """Fill the game's table, bring the ledger into each state, and tick."""
    windows = following(HOURLY.of(datetime.now(UTC) - timedelta(hours=WINDOWS + 2)).id, WINDOWS)
    with database.connect_autocommit() as conn:
        fill(conn, windows[0])
        conn.execute("TRUNCATE babylon_training.windows CASCADE")
        conn.execute("ANALYZE")
    own = settings.replace(window_start=windows[0], window_grace_minutes=0, train_requests=True)
    thin = own.replace(min_agents_per_window=1000)
    rows: list[Row] = []
    with open_instance(own, database) as instance:
        rows += _ticked(Installation(own, database), instance, "nothing was done yet", ("closed_windows",))
        rows += _ticked(Installation(thin, database), instance, "a year of thin windows", ("closed_windows",))
        _all_done(Installation(own, database), database, windows)
        names = ("closed_windows", "changed_windows", "requested_windows")
        rows += _ticked(Installation(own, database), instance, "all is done, no cursor", names)
        rows += _ticked(Installation(own, database), instance, "all is done", ("closed_windows",), windows[-1])
        with database.connect() as conn:
            conn.execute("UPDATE babylon_training.windows SET fingerprint = 'another'")
        rows += _ticked(Installation(own, database), instance, "every window has changed", ("changed_windows",))
        with database.connect() as conn:
            conn.execute("UPDATE babylon_training.windows SET status = 'failed'")
        rows += _ticked(Installation(own, database), instance, "every window has failed", ("closed_windows",))
    return rows


def _all_done(installation: Installation, database: Database, windows: list[str]) -> None:
    """Every window is trained; those that a tick compares have the fingerprint that their rows have."""
    with database.connect() as conn:
        conn.execute("TRUNCATE babylon_training.windows CASCADE")
        conn.execute(_DONE, [windows])
    for window in windows[-COMPARED:]:
        with database.connect() as conn:
            update = "UPDATE babylon_training.windows SET fingerprint = %s WHERE window_id = %s"
            conn.execute(update, [fingerprint_now(installation, window), window])
    with database.connect_autocommit() as conn:
        conn.execute("VACUUM ANALYZE babylon_training.windows")


def _ticked(
    installation: Installation,
    instance: dg.DagsterInstance,
    state: str,
    names: tuple[str, ...],
    cursor: str | None = None,
) -> list[Row]:
    """One tick of each, as the daemon evaluates it; not warmed up."""
    repository = build_definitions(installation.settings, installation=installation).get_repository_def()
    rows = []
    for sensor in map(repository.get_sensor_def, names):
        context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
        started = time.perf_counter()
        asked = sensor.evaluate_tick(context)
        seconds = time.perf_counter() - started
        name = f"a tick of {sensor.name} among {WINDOWS:,} windows and {TRAJECTORIES:,} trajectories: {state}"
        rows.append(at_most(name, seconds, "s", GOAL_SECONDS))
        print(f"{name}: {seconds:.3f} s, {len(asked.run_requests or [])} runs asked for", flush=True)
    return rows
