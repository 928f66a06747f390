"""Does it learn: `babylon demo` as a user runs it, for five seeds of the game, once with three agents who never meet
(SIMULATION_COMPANY=alone), and once without training.

The figure is the share of the way from the expert's to the oracle's mean reward on the same boards that the last five
windows have gone. The seeds are not those that anything was tuned on; the run without training keeps the base model
for all windows and has to stay where it began. GATE=false in the environment trains without the gate, to be held
against a run with it. What plain ART and TRL make of the same boards is in `learning_rivals`, which runs last.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.ledger.database import open_database, stop_embedded
from babylon_assets.ledger.trajectories import read_window
from babylon_assets.ledger.verdicts import of_chain
from babylon_assets.ledger.windows import WindowRow, list_windows
from babylon_assets.report.learning_curve import CurvePoint
from babylon_assets.training.roots import base_model_of
from benchmarks.learning_picture import draw_learning_curves
from benchmarks.learning_rivals import compare_learners
from benchmarks.report import Row, at_least, at_most, publish

SEEDS = (11, 12, 13, 14, 15)
WINDOWS, LAST = 24, 5
MINUTES = 3.5


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One demo: its windows, oldest first, the share of valid answers in each, and its wall time in seconds.

    `passed` is the share of its checkpoints that the gate let pass; None without the gate.
    """

    windows: list[WindowRow]
    valid: list[float]
    seconds: float
    passed: float | None = None

    def mean(self, name: str, last: int = LAST) -> float:
        """Mean over the last windows of the reward, or of a reference policy's."""
        values = [
            (row.reward_mean if name == "reward" else (row.reference or {})[name]) or 0.0
            for row in self.windows[-last:]
        ]
        return statistics.fmean(values)

    @property
    def way(self) -> float:
        """Share of the way from the expert to the oracle, 0 at the expert and 1 at the oracle."""
        return (self.mean("reward") - self.mean("expert")) / (self.mean("oracle") - self.mean("expert"))


def main() -> None:
    """Run the bench."""
    settings = load_settings()
    base = Path(base_model_of(settings))
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        trained = [run_demo(Path(scratch), seed, "trained", base=base) for seed in SEEDS]
        alone = run_demo(Path(scratch), SEEDS[0], "alone", base=base, SIMULATION_COMPANY="alone")
        untrained = run_demo(Path(scratch), SEEDS[0], "untrained", base=base, TRAIN_RL_LOCAL="false")
    picture = settings.home / "bench" / "learning.png"
    rows = [*_rows(trained, untrained), at_least("way of three agents who never meet", alone.way, "share", 0.7)]
    publish("learning", rows, settings.home)
    named = {f"seed {seed}": curve_points(run) for seed, run in zip(SEEDS, trained, strict=True)}
    draw_learning_curves(named, curve_points(untrained), picture)
    print(f"picture: {picture}")
    rivals = compare_learners(settings, base)
    publish("learning_rivals", rivals, settings.home)
    rows += rivals
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(trained: list[DemoRun], untrained: DemoRun) -> list[Row]:
    ways = [run.way for run in trained]
    rows = [
        Row(f"way from expert to oracle, seed {seed}", run.way, "share")
        for seed, run in zip(SEEDS, trained, strict=True)
    ]
    return [
        *rows,
        at_least("seeds that went half of the way", sum(way >= 0.5 for way in ways), "seeds", 4),
        at_least("median way", statistics.median(ways), "share", 0.95),
        at_least("worst way", min(ways), "share", 0.88),
        Row("spread of the ways (standard deviation)", statistics.stdev(ways), "share"),
        at_least("least share of valid answers after the tenth window", _least_valid(trained), "share", 0.9),
        *_gated(trained),
        at_most("way gained without training", untrained.way - _first(untrained), "share", 0.15),
        at_most("longest demo", max(run.seconds for run in trained) / 60, "minutes", MINUTES),
    ]


def _gated(runs: list[DemoRun]) -> list[Row]:
    passed = [run.passed for run in runs if run.passed is not None]
    name = "least share of checkpoints that the gate let pass"
    return [at_least(name, min(passed), "share", (WINDOWS - 2) / WINDOWS)] if passed else []


def _first(run: DemoRun) -> float:
    return DemoRun(run.windows[:LAST], run.valid[:LAST], run.seconds).way


def _least_valid(runs: list[DemoRun]) -> float:
    return min(share for run in runs for share in run.valid[10:])


def curve_points(run: DemoRun) -> list[CurvePoint]:
    """The windows of a run as points of a learning curve."""
    return [CurvePoint(row.window_id, row.reward_mean or 0.0, row.reference or {}) for row in run.windows]


def run_demo(scratch: Path, seed: int, name: str, *options: str, base: Path | None = None, **variables: str) -> DemoRun:
    """Run the demo in a home of its own, and read what it left.

    Args:
        name: of the run.
        options: of the command besides.
        base: a base model that the home already has.
        variables: what its environment has besides.
    """
    home = scratch / f"{seed}-{name}"
    if base is not None:
        shutil.copytree(base, home / "base_models" / base.name)
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}
    environment = {**inherited, "BABYLON_HOME": str(home), **variables}
    command = [sys.executable, "-m", "babylon_assets", "demo", "--windows", str(WINDOWS), "--seed", str(seed), *options]
    print(f"seed {seed}, {name}", flush=True)
    started = time.monotonic()
    own = Settings(home=home)
    try:
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        with open_database(own).connect() as conn:
            windows = list_windows(conn)
            return DemoRun(windows, [_valid(conn, row.window_id) for row in windows], seconds, _passed(conn))
    finally:
        stop_embedded(own)


def _passed(conn: Connection[Any]) -> float | None:
    """Share of the checkpoints that the gate let pass."""
    verdicts = of_chain(conn, Settings().model_name)
    return statistics.fmean(verdict.passed for verdict in verdicts) if verdicts else None


def _valid(conn: Connection[Any], window: str) -> float:
    """Share of the window's actions that could be carried out."""
    facts = [fact for record in read_window(conn, window) for fact in record.facts]
    return 1 - sum(fact.invalid for fact in facts) / len(facts)


if __name__ == "__main__":
    main()
