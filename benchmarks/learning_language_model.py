"""Does a language model learn: `babylon demo --model smollm2` as a user runs it, SmolLM2-135M-Instruct from its wheel.

Three seeds of the market that nothing was tuned on, in the terse style, then one in the game's (SIMULATION_STYLE=game);
`terse` or `game` as an argument runs that part alone. An expert plays the first windows, whose answers are imitated.
The figure of the terse style is the share of the way from the expert's to the oracle's mean reward on the same boards
that the last five windows have gone. That of the game's begins where imitation left the model: at the first windows
that it played itself. A demo takes half an hour in the terse style on two cores, and an hour and a half in the game's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from babylon_assets.config.settings import load_settings
from benchmarks.learning import DemoRun, curve_points, run_demo
from benchmarks.learning_picture import draw_rival_curves
from benchmarks.report import Row, at_least, at_most, publish

MODEL = ("--model", "smollm2")
SEEDS = {"terse": (41, 42, 43), "game": (41,)}
#: Windows that an expert plays in the game's style, and those after them by which the warm start is measured.
EXPERT_WINDOWS, WARM_WINDOWS = 8, 2
#: As `make demo MODEL=smollm2` sets it.
HUGE_PAGES = "glibc.malloc.hugetlb=1"
MINUTES = {"terse": 40, "game": 90}


def main() -> None:
    """Run the bench, or the part that is named."""
    settings = load_settings()
    rows: list[Row] = []
    runs: dict[str, DemoRun] = {}
    for style in sys.argv[1:] or MINUTES:
        with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
            played = {f"{style}, seed {seed}": _run(Path(scratch), seed, style) for seed in SEEDS[style]}
        rows += _terse_rows(played) if style == "terse" else _game_rows(*played.values())
        rows.append(at_most(f"{style}: longest demo", _longest(played), "minutes", MINUTES[style]))
        runs |= played
    publish("learning_language_model", rows, settings.home)
    picture = settings.home / "bench" / "learning_language_model.png"
    draw_rival_curves({name: curve_points(run) for name, run in runs.items()}, picture)
    print(f"picture: {picture}")
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _run(scratch: Path, seed: int, style: str) -> DemoRun:
    return run_demo(scratch, seed, style, *MODEL, SIMULATION_STYLE=style, GLIBC_TUNABLES=HUGE_PAGES)


def _terse_rows(runs: dict[str, DemoRun]) -> list[Row]:
    ways = [run.way for run in runs.values()]
    return [
        *(Row(f"way from expert to oracle, {name}", run.way, "share") for name, run in runs.items()),
        at_least("terse: median way", statistics.median(ways), "share", 0.9),
        at_least("terse: worst way", min(ways), "share", 0.8),
        Row("terse: least share of checkpoints that the gate let pass", _least_passed(runs), "share"),
    ]


def _game_rows(run: DemoRun) -> list[Row]:
    warm = _part(run, EXPERT_WINDOWS, EXPERT_WINDOWS + WARM_WINDOWS).way
    return [
        Row("game: way from expert to oracle after the warm start", warm, "share"),
        Row("game: way from expert to oracle", run.way, "share"),
        at_least("game: way from the warm start to the oracle", (run.way - warm) / (1 - warm), "share", 0.6),
    ]


def _part(run: DemoRun, first: int, end: int) -> DemoRun:
    return DemoRun(run.windows[first:end], run.valid[first:end], run.seconds)


def _least_passed(runs: dict[str, DemoRun]) -> float:
    return min(run.passed if run.passed is not None else 1.0 for run in runs.values())


def _longest(runs: dict[str, DemoRun]) -> float:
    return max(run.seconds for run in runs.values()) / 60


if __name__ == "__main__":
    main()
