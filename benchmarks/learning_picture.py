"""The picture of the bench of learning: several runs beside one that is not trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babylon_assets.report.learning_curve import CurvePoint
from babylon_assets.report.scales import SMOOTHING, trailing_means

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
POLICY, GOOD, FAIR = "#2563eb", "#15803d", "#b45309"
#: Of different learners.
RIVALS = (POLICY, "#9333ea", "#db2777", INK)


def draw_learning_curves(runs: Mapping[str, Sequence[CurvePoint]], untrained: Sequence[CurvePoint], path: Path) -> None:
    """Write the runs as shares of the way from the expert (0) to the oracle (1), as a PNG.

    Each point is the trailing mean of SMOOTHING windows, of the reward and of both references alike, so that a window
    of easy boards does not look like learning.
    """
    figure, axes = _begin_picture()
    for place, (name, points) in enumerate(runs.items()):
        shade = 0.95 - 0.6 * place / max(1, len(runs) - 1)
        axes.plot(_shares_of_the_way(points), color=POLICY, alpha=shade, linewidth=1.8, label=name)
    axes.plot(_shares_of_the_way(untrained), color=INK, linewidth=1.8, linestyle=(0, (2, 2)), label="not trained")
    _end_picture(figure, axes, path)


def draw_rival_curves(runs: Mapping[str, Sequence[CurvePoint]], path: Path) -> None:
    """Write runs of different learners in the same way, each in a colour of its own."""
    figure, axes = _begin_picture()
    for (name, points), color in zip(runs.items(), RIVALS, strict=False):
        axes.plot(_shares_of_the_way(points), color=color, linewidth=1.8, label=name)
    _end_picture(figure, axes, path)


def _begin_picture() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=110, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    return figure, axes


def _end_picture(figure: Any, axes: Any, path: Path) -> None:
    for height, name, color in ((1.0, "oracle", GOOD), (0.0, "expert", FAIR)):
        axes.axhline(height, color=color, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.text(1.01, height, name, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=color)
    axes.set_xlabel("window", color=MUTED, fontsize=8)
    axes.set_ylabel(f"share of the way (mean of {SMOOTHING})", color=MUTED, fontsize=8)
    axes.set_title("From the expert to the oracle", loc="left", color=INK, fontsize=10, fontweight="bold")
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=6)
    figure.savefig(path)


def _shares_of_the_way(points: Sequence[CurvePoint]) -> list[float]:
    reward = trailing_means([point.reward for point in points])
    expert, oracle = (trailing_means([point.references[name] for point in points]) for name in ("expert", "oracle"))
    return [(mine - low) / (high - low) for mine, low, high in zip(reward, expert, oracle, strict=True)]
