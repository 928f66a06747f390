"""The small model's boards learned three ways: by the embedded backend, by plain ART, and by TRL's GRPOTrainer.

One seed, 24 windows, one run. Each learner plays the same boards with its own policy and trains on its own answers, as
many a window for all (`rivals.market_line`): nobody is held out, no gate stands between, and every outcome is known.
What is whose is said in `rivals.plain_art` and `rivals.trl_trainer`. Plain ART and TRL get the CPU seconds a window
that the embedded backend's training took, the median of its windows, for their steps alone: loading is not counted.
Their default learning rates, 5e-6 and 1e-6, are those of far larger models: each takes the best of `RATES`, tried for
eight windows of another seed before. A share of the way below zero is a policy that does worse than the expert.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from babylon_assets.config.settings import Settings, load_settings, prepare_libraries
from babylon_assets.domain.windows import HOURLY
from babylon_assets.report.learning_curve import CurvePoint
from babylon_assets.training.roots import base_model_of
from benchmarks.learning_picture import draw_rival_curves
from benchmarks.report import Row, at_least, publish
from benchmarks.rivals.learners import EmbeddedLearner, Learner, PlainArtLearner, TrlLearner
from benchmarks.rivals.market_questions import WINDOW

SEED, WINDOWS, LAST = 11, 24, 5
OURS, ART, TRL = "the embedded backend", "plain ART", "TRL's GRPOTrainer"
#: Learning rates that each rival tries on another seed, and for how many windows.
RATES, TUNING_SEED, TUNING_WINDOWS = (1.5e-4, 5e-4, 1.5e-3), 101, 8

Curves = dict[str, list[CurvePoint]]


def main() -> None:
    """Run the bench."""
    settings = load_settings()
    prepare_libraries(settings)
    rows = compare_learners(settings, Path(base_model_of(settings)))
    publish("learning_rivals", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def compare_learners(settings: Settings, base: Path, seed: int = SEED, windows: int = WINDOWS) -> list[Row]:
    """Let all learn, draw the curves, and say how far each came."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(home=Path(scratch), training_backend="embedded", base_model=str(base), simulation_seed=seed)
        curves, rows = _learn(own, settings.home, windows)
    picture = settings.home / "bench" / "learning_rivals.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_rival_curves(curves, picture)
    print(f"picture: {picture}")
    ways = {name: _way(points) for name, points in curves.items()}
    rows += [Row(f"way from expert to oracle, {name}", way, "share") for name, way in ways.items()]
    rows += [
        at_least(f"{OURS} ahead of {name}", ways[OURS] - way, "share", 0.0)
        for name, way in ways.items()
        if name != OURS
    ]
    return rows


def _learn(settings: Settings, home: Path, windows: int) -> tuple[Curves, list[Row]]:
    from babylon_assets.training.hyperparameters import suited_to

    base = str(settings.training.base_model)
    embedded = EmbeddedLearner(settings, base)
    curves = {OURS: _follow(OURS, settings, embedded, windows, 0.0)}
    seconds = statistics.median(embedded.seconds)
    rows = [Row("training of a window, median", seconds, "CPU s")]
    rows.append(Row(f"answers trained a window, {OURS}", embedded.trained / windows, "answers"))
    for name, begin in _rivals(settings.home, home, base, suited_to(base).lora_rank).items():
        rate = _best_rate(name, settings, begin, seconds)
        learner = begin("measured", rate)
        curves[name] = _follow(name, settings, learner, windows, seconds)
        rows.append(Row(f"learning rate, {name}", 1e4 * rate, "times 1e-4"))
        rows.append(Row(f"answers trained a window, {name}", learner.trained / windows, "answers"))
    return curves, rows


def _rivals(scratch: Path, home: Path, base: str, rank: int) -> dict[str, Callable[[str, float], Learner]]:
    """What begins a rival anew, by a name for its folder and with a learning rate."""
    from benchmarks.rivals.trl_library import trl_environment

    return {
        ART: lambda folder, rate: PlainArtLearner(scratch / "art-alone" / folder, base, rank, rate),
        TRL: lambda folder, rate: TrlLearner(scratch / "trl" / folder, base, rank, rate, trl_environment(home, 1)),
    }


def _best_rate(name: str, settings: Settings, begin: Callable[[str, float], Learner], seconds: float) -> float:
    """The learning rate whose last windows were best, on boards that are not measured."""
    own = settings.replace(simulation_seed=TUNING_SEED)
    ways = {
        rate: _way(_follow(f"{name} at {rate:g}", own, begin(f"{rate:g}", rate), TUNING_WINDOWS, seconds))
        for rate in RATES
    }
    return max(ways, key=lambda rate: ways[rate])


def _follow(name: str, settings: Settings, learner: Learner, windows: int, seconds: float) -> list[CurvePoint]:
    """Play and train window after window."""
    from benchmarks.rivals.market_line import MarketLine

    line, window, adapter, points = MarketLine(settings, Path(str(settings.training.base_model))), WINDOW, None, []
    for step in range(windows):
        played = line.play(window, adapter, step)
        points.append(played.point)
        print(f"{name}, window {step + 1}: {played.point.reward:.3f}", flush=True)
        adapter = learner.learn(step + 1, adapter, played.groups, seconds) or adapter
        window = HOURLY.next(window)
    return points


def _way(points: list[CurvePoint]) -> float:
    """Share of the way from the expert to the oracle, over the last windows."""
    last = points[-LAST:]
    reward = statistics.fmean(point.reward for point in last)
    expert, oracle = (statistics.fmean(point.references[name] for point in last) for name in ("expert", "oracle"))
    return (reward - expert) / (oracle - expert)


if __name__ == "__main__":
    main()
