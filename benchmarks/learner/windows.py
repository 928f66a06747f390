"""Windows of the demo, played and trained in this process, and where time goes: reading, sampling, steps, the rest.

What a step alone costs is measured in `layouts`.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Connection, Database, migrate, open_database, stop_embedded
from babylon_assets.training.backends.embedded import trainer
from benchmarks.report import Row, at_most

WINDOWS, WARM = 5, 1
FIRST = "2026-10-01T00:00"


class Watch:
    """Seconds spent in some functions, by a name; a function that is called inside another of them counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    @contextmanager
    def on(self, *places: tuple[str, Any, str]) -> Iterator[None]:
        """Watch (name, owner, attribute) until the end of the block."""
        before = [(owner, attribute, getattr(owner, attribute)) for _, owner, attribute in places]
        try:
            for name, owner, attribute in places:
                setattr(owner, attribute, self._watched(name, getattr(owner, attribute)))
            yield
        finally:
            for owner, attribute, function in before:
                setattr(owner, attribute, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return function(*arguments, **named)
            self._inside, started = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[name] += time.perf_counter() - started
                self._inside = False

        return watched


def windows_rows(home: Path, base: Path) -> list[Row]:
    """Some windows of the demo, played and trained in this process, first by the functions, then as Dagster runs."""
    shutil.copytree(base, home / "base_models" / base.name)
    settings = Settings(home=home, training_backend="embedded", window_start=FIRST, gate=False)
    try:
        database = open_database(settings)
        migrate(database)
        return _played(settings, database, base)
    finally:
        stop_embedded(settings)


def _played(settings: Settings, database: Database, base: Path) -> list[Row]:
    from babylon_assets.cli.simulated_game import create_tables
    from babylon_assets.domain.windows import HOURLY
    from babylon_assets.orchestration.resources import Installation
    from babylon_assets.serving.engine.engine import Engine

    create_tables(database)
    installation, engine = Installation(settings, database), Engine(base, "babylon-agent@0")
    windows = [FIRST]
    while len(windows) < 2 * WINDOWS:
        windows.append(HOURLY.next(windows[-1]))
    plain, plain_wall, rates = _by_functions(installation, engine, windows[:WINDOWS])
    runs, runs_wall = _by_dagster(installation, engine, windows[WINDOWS:])
    counted = WINDOWS - WARM
    return [
        Row("real grouping: default model, windows of the demo", statistics.fmean(rates), "tokens/s"),
        *_shares("by its functions", plain, plain_wall, counted, at_most),
        *_shares("as a Dagster run with its pictures", runs, runs_wall, counted, None),
    ]


def _watched_places() -> list[tuple[str, Any, str]]:
    """What is reading, sampling and optimizer steps, by where it is called."""
    from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories, training_datasets
    from babylon_assets.serving.engine.engine import Engine

    steps = ("policy_gradient_step", "undo_if_too_far", "retry_smaller")
    return [
        ("reading", raw_trajectories, "copy_window"),
        ("reading", scored_trajectories, "score_window"),
        ("reading", training_datasets, "freeze_window"),
        *(("steps", trainer.Trainer, name) for name in steps),
        ("sampling", Engine, "complete"),
    ]


def _by_functions(installation: Any, engine: Any, windows: list[str]) -> tuple[Watch, float, list[float]]:
    """Play and train some windows by calling what the assets call, one after the other."""
    from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories, training_datasets
    from babylon_assets.training.window_training import train_window

    watch, wall, rates = Watch(), 0.0, []
    for number, window in enumerate(windows):
        seen = watch if number >= WARM else Watch()
        with seen.on(*_watched_places()), installation.connect() as conn:
            started = time.perf_counter()
            _play(installation.settings, conn, engine, window)
            raw_trajectories.copy_window(installation, window)
            scored_trajectories.score_window(installation, window)  # type: ignore[attr-defined]  # watched there
            training_datasets.freeze_window(installation, window)  # type: ignore[attr-defined]
            result = train_window(installation.settings, installation.database, window)
            wall += (time.perf_counter() - started) * (number >= WARM)
        if number >= WARM and result.steps:
            rates.append(_real_rate(installation.database, result))
    return watch, wall, rates


def _by_dagster(installation: Any, engine: Any, windows: list[str]) -> tuple[Watch, float]:
    """The same as recorded Dagster runs of the whole line, evaluation and pictures included."""
    from babylon_assets.definitions import build_definitions
    from babylon_assets.orchestration.runtime import Line, open_instance

    watch, wall = Watch(), 0.0
    with open_instance(installation.settings, installation.database) as instance:
        line = Line(build_definitions(installation.settings, installation=installation), instance)
        for number, window in enumerate(windows):
            seen = watch if number >= WARM else Watch()
            with seen.on(*_watched_places()):
                started = time.perf_counter()
                with installation.connect() as conn:
                    _play(installation.settings, conn, engine, window)
                line.materialize(window)
                wall += (time.perf_counter() - started) * (number >= WARM)
    return watch, wall


def _play(settings: Settings, conn: Connection, engine: Any, window: str) -> None:
    """Play a window with the newest policy, by the engine in this process."""
    from babylon_assets.domain.policies import policy_name
    from babylon_assets.environments.simulated.players import play_window
    from babylon_assets.ledger import checkpoints

    made = checkpoints.head(conn, settings.model_name)
    name = policy_name(settings.model_name, made.step if made else 0)
    if engine.name != name:
        engine.activate(Path(made.path) if made and made.path else None, name)
    play_window(settings, conn, window, engine)
    conn.commit()


def _shares(name: str, watch: Watch, wall: float, windows: int, limit: Any) -> list[Row]:
    rest = 1 - sum(watch.seconds.values()) / wall
    figure = f"rest of a window {name}: not reading, sampling or steps"
    parts = [Row(f"a window {name}: {part}", seconds / windows, "s") for part, seconds in sorted(watch.seconds.items())]
    share = limit(figure, rest, "share", 0.15) if limit else Row(figure, rest, "share")
    return [Row(f"a window {name}", wall / windows, "s"), *parts, share]


def _real_rate(database: Database, result: Any) -> float:
    """Trajectory tokens of a trained window per second of its optimizer steps."""
    from babylon_assets.ledger.datasets import load_dataset

    with database.connect() as conn:
        dataset = load_dataset(conn, result.checkpoint.dataset_id)
    trained = [sample for sample in dataset.samples if sample.trains_as == "policy_gradient"]
    tokens = sum(len(sample.prompt_token_ids or []) + len(sample.token_ids or []) for sample in trained)
    seen = sum(step["tokens"] for step in result.steps)
    share = seen / max(1, sum(len(sample.token_ids or []) for sample in trained))
    return float(tokens * share / sum(step["seconds"] for step in result.steps))
