"""What orchestration costs: a window of the whole line as a launched run, many as a backfill, and a sensor's tick.

Launched from the UI of `babylon up`, its webserver and daemon as processes, on an embedded PostgreSQL. Beside it, from
the same UI: an empty asset, and plain assets that do nothing, in a chain, with a run per window as Dagster backfills
them. The game is small and the model tiny, so that what is measured is not playing or training. Those plain assets take
a tick of the daemon per window however many there are: what a window takes is measured from the first to the last of a
few. A backfill lasts from asking for it to the end of its last run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from babylon_assets.config.settings import Settings, load_settings, prepare_libraries, subprocess_environment
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger.database import Database, migrate, open_database, stop_embedded
from babylon_assets.ledger.windows import list_windows
from babylon_assets.orchestration.jobs import DATA, TRAINING
from benchmarks.datapath.rows import following
from benchmarks.launched.ticks import ticks
from benchmarks.launched.ui import OURS, PLAIN, opened_ui
from benchmarks.report import Row, at_least, at_most, publish

FIRST = "2026-10-01T00:00"
LAUNCHED, BACKFILLED, PLAINLY = 3, 24, 3


def main() -> None:
    """Run the bench, or that of its parts that is named: `launched` or `ticks`."""
    settings, wanted = load_settings(), sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        home = Path(scratch) / "home"
        try:
            rows = _rows(home, Path(scratch), wanted)
        finally:
            stop_embedded(Settings(home=home))
    publish("orchestration", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(home: Path, scratch: Path, wanted: Sequence[str]) -> list[Row]:
    settings = Settings(home=home, window_start=FIRST)
    database = open_database(settings)
    migrate(database)
    with database.connect() as conn:
        create_game_tables(conn)
    rows: list[Row] = []
    if not wanted or "launched" in wanted:
        rows += _launched(small_game(settings), database, scratch)
        print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in rows), sep="\n", flush=True)
    if not wanted or "ticks" in wanted:
        rows += ticks(settings, database)
    return rows


def small_game(settings: Settings) -> Settings:
    """A game of 48 answers an hour, a model that is made in seconds, and an examination on few boards."""
    prepare_libraries(settings)
    from babylon_assets.environments.simulated.base_model import Recipe, ensure_base_model

    base = ensure_base_model(settings.home, Recipe(steps=60, batch=32, least_signal=0, least_valid=0.5))
    return settings.replace(
        training_backend="embedded",
        base_model=str(base),
        simulation_rooms=1,
        simulation_agents_per_room=6,
        simulation_ticks=8,
        min_samples_per_window=4,
        lora_rank=4,
        gradient_tokens=1024,
        evaluation_seeds=8,
        max_policy_lag=1000,  # all hours are played beforehand, by the base model
    )


def _launched(settings: Settings, database: Database, scratch: Path) -> list[Row]:
    windows = following(FIRST, LAUNCHED + 2 * BACKFILLED)
    _play(settings, database, windows)
    single, ranged, by_command = (
        windows[:LAUNCHED],
        windows[LAUNCHED : LAUNCHED + BACKFILLED],
        windows[LAUNCHED + BACKFILLED :],
    )
    with opened_ui(settings, database, scratch) as ui:
        ui.run(PLAIN, "__ASSET_JOB", FIRST, ["empty"])  # the first run waits for the daemon to be up
        empty = statistics.median(ui.run(PLAIN, "__ASSET_JOB", window, ["empty"]) for window in single)
        line = statistics.median(ui.run(OURS, "train_window", window) for window in single)
        whole = ui.backfill([*DATA, *TRAINING], ranged)
        alone = ui.backfill(["data", "checkpoints"], following(FIRST, PLAINLY))
    ours, plain = whole.last / BACKFILLED, (alone.last - alone.first) / (PLAINLY - 1)
    command = _by_command(settings, database, by_command) / BACKFILLED
    _refuse_untrained(database, windows)
    return [
        Row("an empty asset of one window, as a launched run", empty, "s"),
        at_most("the whole line of one window, as a launched run", line, "s", 12),
        Row("  against the empty asset", line / empty, "times"),
        at_most(f"a backfill of {BACKFILLED} windows from the UI, whole line: a window", ours, "s", 3),
        at_most("the same by babylon backfill, its start included: a window", command, "s", 3),
        Row(f"plain assets that do nothing, a run per window: a window, of {PLAINLY} measured", plain, "s"),
        at_least("  plain assets against ours from the UI", plain / ours, "times", 8),
    ]


def _play(settings: Settings, database: Database, windows: Sequence[str]) -> None:
    from babylon_assets.environments.simulated.players import play_window
    from babylon_assets.serving.engine.engine import Engine

    assert settings.training.base_model is not None
    engine = Engine(Path(settings.training.base_model), f"{settings.model_name}@0")
    with database.connect_autocommit() as conn:
        for window in windows:
            play_window(settings, conn, window, engine)


def _by_command(settings: Settings, database: Database, windows: Sequence[str]) -> float:
    """Seconds of `babylon backfill` over these windows, as a process."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "babylon_assets", "backfill", windows[0], windows[-1]],
        env=subprocess_environment(settings, database.dagster_url),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def _refuse_untrained(database: Database, windows: Sequence[str]) -> None:
    """What was not trained would make the figures look good."""
    with database.connect() as conn:
        states = {row.window_id: row.status for row in list_windows(conn)}
    if left := [window for window in windows if states.get(window) != "trained"]:
        raise SystemExit(f"{len(left)} of {len(windows)} windows were not trained, such as {left[0]}")


if __name__ == "__main__":
    main()
