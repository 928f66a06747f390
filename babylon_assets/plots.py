"""The pictures that a person sees in the metadata, at the end of the demo and in the README.

Each function turns plain numbers into the bytes of a PNG. What the numbers mean is decided elsewhere; matplotlib is
imported when the first picture is drawn.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
POLICY, GOOD, FAIR, POOR = "#2563eb", "#15803d", "#b45309", "#9ca3af"
REFERENCES = (("oracle", GOOD), ("teacher", FAIR), ("random", POOR))
SMOOTHING = 5


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One window of a learning curve.

    Attributes:
        window: the window's id.
        reward: mean reward of its samples.
        references: mean reward of other policies on the very same boards, by name (`oracle`, `teacher`, `random`).
    """

    window: str
    reward: float
    references: dict[str, float]


def learning_curve(points: Sequence[CurvePoint], title: str = "Mean reward per window") -> bytes:
    """Mean reward over the windows, oldest first, with its five-window mean and the lines of the reference policies."""
    figure, axes = _canvas(7.2, 3.6)
    positions = np.arange(len(points))
    rewards = np.array([point.reward for point in points], dtype=float)
    axes.plot(positions, rewards, color=POLICY, alpha=0.35, linewidth=1, marker="o", markersize=3)
    axes.plot(positions, _trailing_mean(rewards), color=POLICY, linewidth=2.4)
    labels = [("policy", POLICY, float(_trailing_mean(rewards)[-1]))] if len(points) else []
    for name, color in REFERENCES:
        values = np.array([point.references.get(name, np.nan) for point in points], dtype=float)
        if np.isfinite(values).any():
            axes.plot(positions, values, color=color, alpha=0.25, linewidth=1)
            axes.axhline(float(np.nanmean(values)), color=color, linewidth=1.2, linestyle=(0, (5, 3)))
            labels.append((name, color, float(np.nanmean(values))))
    _label_at_the_right(axes, labels)
    _window_ticks(axes, [point.window for point in points])
    axes.set_ylabel(f"mean reward (thick: mean of {SMOOTHING})", color=MUTED, fontsize=8)
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    return _png(figure)


def learning_curves(runs: Mapping[str, Sequence[CurvePoint]], untrained: Sequence[CurvePoint]) -> bytes:
    """Several runs beside one that is not trained, as shares of the way from the teacher (0) to the oracle (1).

    Each point is the trailing mean of SMOOTHING windows, of the reward and of both references alike, so that a window
    of easy boards does not look like learning.
    """
    figure, axes = _canvas(7.2, 3.6)
    for place, (name, points) in enumerate(runs.items()):
        shade = 0.95 - 0.6 * place / max(1, len(runs) - 1)
        axes.plot(_way(points), color=POLICY, alpha=shade, linewidth=1.8, label=name)
    axes.plot(_way(untrained), color=INK, linewidth=1.8, linestyle=(0, (2, 2)), label="not trained")
    for height, name, color in ((1.0, "oracle", GOOD), (0.0, "teacher", FAIR)):
        axes.axhline(height, color=color, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(name, (0, height), xytext=(2, 3), textcoords="offset points", fontsize=8, color=color)
    axes.set_xlabel("window", color=MUTED, fontsize=8)
    axes.set_ylabel(f"share of the way (mean of {SMOOTHING})", color=MUTED, fontsize=8)
    axes.set_title("From the teacher to the oracle", loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.legend(loc="center right", fontsize=8, frameon=False, ncols=2)
    return _png(figure)


def _way(points: Sequence[CurvePoint]) -> np.ndarray:
    reward = _trailing_mean(np.array([point.reward for point in points], dtype=float))
    teacher, oracle = (
        _trailing_mean(np.array([point.references[name] for point in points], dtype=float))
        for name in ("teacher", "oracle")
    )
    return np.asarray((reward - teacher) / (oracle - teacher))


def reward_histogram(rewards: Sequence[float], title: str = "Rewards of the samples") -> bytes:
    """How the rewards of one window's samples are spread, with their mean; the title counts NaN (not yet known)."""
    values = np.asarray(rewards, dtype=float)
    known = values[np.isfinite(values)]
    figure, axes = _canvas(5.6, 2.6)
    if known.size:
        axes.hist(known, bins=min(30, max(8, int(np.sqrt(known.size) * 2))), color=POLICY, alpha=0.85, rwidth=0.94)
        mean = float(known.mean())
        axes.axvline(mean, color=INK, linewidth=1.2)
        axes.annotate(
            f"mean {mean:+.3f}",
            (mean, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -9),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    unknown = values.size - known.size
    note = f"  ({known.size} known, {unknown} not yet)" if unknown else f"  ({known.size})"
    axes.set_title(title + note, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.set_xlabel("reward", color=MUTED, fontsize=8)
    axes.set_ylabel("samples", color=MUTED, fontsize=8)
    return _png(figure)


def as_markdown(png: bytes, alt: str) -> str:
    """The picture as markdown with the data inline, so that a page shows it without asking any server."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _trailing_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value and the ones before it, at most SMOOTHING of them."""
    return np.array([values[max(0, end - SMOOTHING) : end].mean() for end in range(1, len(values) + 1)])


def _label_at_the_right(axes: Axes, labels: Sequence[tuple[str, str, float]]) -> None:
    """Names of the lines beside their ends, pushed apart where they would cover one another."""
    low, high = axes.get_ylim()
    room, previous = (high - low) * 0.075, -np.inf
    for name, color, value in sorted(labels, key=lambda label: label[2]):
        place = max(value, previous + room)
        previous = place
        axes.annotate(
            f"{name} {value:.2f}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=color,
            fontweight="bold" if name == "policy" else "normal",
            annotation_clip=False,
        )


def _window_ticks(axes: Axes, windows: Sequence[str]) -> None:
    """At most eight windows are named; the day is shown where it changes."""
    if not windows:
        return
    every = max(1, -(-len(windows) // 8))
    shown = list(range(0, len(windows), every))
    days = [windows[place][5:10] for place in shown]
    axes.set_xticks(shown)
    axes.set_xticklabels(
        [
            windows[place][11:16] + (f"\n{day}" if index == 0 or day != days[index - 1] else "")
            for index, (place, day) in enumerate(zip(shown, days, strict=True))
        ]
    )
