"""The pictures that a person sees in the metadata, at the end of the demo and in the README.

Each function turns plain numbers into the bytes of a PNG, or of an SVG where many are drawn. What the numbers mean is
decided elsewhere; matplotlib is imported when the first PNG is drawn.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
POLICY, GOOD, FAIR, POOR = "#2563eb", "#15803d", "#b45309", "#9ca3af"
REFERENCES = (("oracle", GOOD), ("expert", FAIR), ("random", POOR))
SMOOTHING = 5


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One window of a learning curve.

    Attributes:
        window: the window's id.
        reward: mean reward of its samples.
        references: mean reward of other policies on the very same boards, by name (`oracle`, `expert`, `random`).
        standing: what became of the checkpoint that was trained on it: promoted, refused, rolled back, or None.
    """

    window: str
    reward: float
    references: dict[str, float]
    standing: str | None = None


def learning_curve(points: Sequence[CurvePoint], title: str = "Mean reward per window") -> bytes:
    """Mean reward over the windows, oldest first, with its five-window mean and the lines of the reference policies.

    Marks at the foot say after which windows a new checkpoint was promoted, and which were refused or rolled back.
    """
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
    _standings(axes, points)
    _label_at_the_right(axes, labels)
    _window_ticks(axes, [point.window for point in points])
    axes.set_ylabel(f"mean reward (thick: mean of {SMOOTHING})", color=MUTED, fontsize=8)
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    return _png(figure)


def _standings(axes: Axes, points: Sequence[CurvePoint]) -> None:
    """A mark per window at the foot of the picture: a triangle for a promotion, a cross for what was not kept."""
    marks = (("promoted", "^", GOOD), ("refused", "x", FAIR), ("rolled back", "x", INK))
    for standing, marker, color in marks:
        places = [place for place, point in enumerate(points) if point.standing == standing]
        if places:
            foot = np.full(len(places), 0.03)
            shape: dict[str, Any] = {"marker": marker, "s": 22, "color": color, "linewidths": 1.2, "label": standing}
            axes.scatter(places, foot, transform=axes.get_xaxis_transform(), zorder=3, **shape)
    if any(point.standing for point in points):
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False, ncols=3)


def learning_curves(runs: Mapping[str, Sequence[CurvePoint]], untrained: Sequence[CurvePoint]) -> bytes:
    """Several runs beside one that is not trained, as shares of the way from the expert (0) to the oracle (1).

    Each point is the trailing mean of SMOOTHING windows, of the reward and of both references alike, so that a window
    of easy boards does not look like learning.
    """
    figure, axes = _canvas(7.2, 3.6)
    for place, (name, points) in enumerate(runs.items()):
        shade = 0.95 - 0.6 * place / max(1, len(runs) - 1)
        axes.plot(_way(points), color=POLICY, alpha=shade, linewidth=1.8, label=name)
    axes.plot(_way(untrained), color=INK, linewidth=1.8, linestyle=(0, (2, 2)), label="not trained")
    for height, name, color in ((1.0, "oracle", GOOD), (0.0, "expert", FAIR)):
        axes.axhline(height, color=color, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(name, (0, height), xytext=(2, 3), textcoords="offset points", fontsize=8, color=color)
    axes.set_xlabel("window", color=MUTED, fontsize=8)
    axes.set_ylabel(f"share of the way (mean of {SMOOTHING})", color=MUTED, fontsize=8)
    axes.set_title("From the expert to the oracle", loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.legend(loc="center right", fontsize=8, frameon=False, ncols=2)
    return _png(figure)


def _way(points: Sequence[CurvePoint]) -> np.ndarray:
    reward = _trailing_mean(np.array([point.reward for point in points], dtype=float))
    expert, oracle = (
        _trailing_mean(np.array([point.references[name] for point in points], dtype=float))
        for name in ("expert", "oracle")
    )
    return np.asarray((reward - expert) / (oracle - expert))


def reward_histogram(
    rewards: Sequence[float], title: str = "Rewards of the samples", groups: Sequence[float] = ()
) -> bytes:
    """How the rewards of one window's samples are spread, with their mean; the title counts NaN (not yet known).

    An SVG, written by hand: every window of a backfill has two of these, and matplotlib takes 130 ms for one.

    Args:
        groups: mean reward of each group, marked under the bars: a sample is worth what it is beside its own mark.
    """
    values = np.asarray(rewards, dtype=float)
    known = values[np.isfinite(values)]
    unknown = values.size - known.size
    note = f"({known.size} known, {unknown} not yet)" if unknown else f"({known.size})"
    parts = [_text(12, 20, f"{title}  {note}", INK, 13, "start", bold=True)]
    if known.size:
        counts, edges = np.histogram(known, bins=min(30, max(8, int(np.sqrt(known.size) * 2))))
        parts += _bars(counts, edges, float(known.mean()))
        parts += _marks(groups, float(edges[0]), float(edges[-1]))
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{HIGH}" font-family="sans-serif">'
    return "".join([frame, f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>', *parts, "</svg>"]).encode()


#: What is drawn of a training's steps: metrics that share a panel, and the panel's title.
_STEP_PANELS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("loss",), "loss"),
    (("entropy",), "entropy, nats"),
    (("kl_to_behaviour",), "KL to the behaviour, nats"),
    (("kl_to_parent",), "KL to the parent, nats"),
    (("ratio_mean", "ratio_min", "ratio_max"), "ratio: mean, extremes"),
    (("clipped_share",), "clipped share"),
    (("grad_norm",), "gradient norm"),
    (("logprob_mean",), "mean log-probability"),
    (("tokens_per_second",), "tokens/s"),
)
_PANEL_WIDE, _PANEL_HIGH = 190, 104


def training_steps(steps: Sequence[Mapping[str, float]], title: str = "Optimizer steps") -> bytes:
    """Small multiples over the optimizer steps of one training: a panel for each metric they have, undone ones hollow.

    An SVG, as `reward_histogram` is one.

    Args:
        steps: metrics by name, `tokens` and `seconds` among them; undone steps carry `undone`.
    """
    timed = [{**step, "tokens_per_second": step["tokens"] / (step["seconds"] or math.nan)} for step in steps]
    parts = [_text(12, 20, f"{title}  ({len(steps)})", INK, 13, "start", bold=True)]
    number = 0
    for names, heading in _STEP_PANELS:
        lines = [[step.get(name, math.nan) for step in timed] for name in names]
        known = [value for line in lines for value in line if math.isfinite(value)]
        if known:
            corner = (12 + number % 4 * _PANEL_WIDE, 32 + number // 4 * _PANEL_HIGH)
            hollow = ["undone" in step for step in timed]
            parts += _panel(corner, heading, lines, hollow, (min(known), max(known)))
            number += 1
    wide, high = 24 + 4 * _PANEL_WIDE, 40 + max(1, -(-number // 4)) * _PANEL_HIGH
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" font-family="sans-serif">'
    return "".join([frame, f'<rect width="{wide}" height="{high}" fill="white"/>', *parts, "</svg>"]).encode()


def _panel(
    corner: tuple[int, int],
    heading: str,
    lines: Sequence[Sequence[float]],
    hollow: Sequence[bool],
    span: tuple[float, float],
) -> Iterator[str]:
    """One panel: its title, its least and greatest value, and a line with a dot per step for each metric."""
    left, top = corner[0] + 4, corner[1] + 22
    right, bottom = corner[0] + _PANEL_WIDE - 14, corner[1] + _PANEL_HIGH - 16
    low, high = span

    def place(number: int, value: float) -> tuple[float, float]:
        across = left + (right - left) * (number / (len(hollow) - 1) if len(hollow) > 1 else 0.5)
        return across, bottom - (bottom - top) * ((value - low) / (high - low) if high > low else 0.5)

    yield _text(left, corner[1] + 12, heading, INK, 10, "start")
    yield f'<path d="M{left} {bottom + 3}H{right}" stroke="{GRID}"/>'
    yield _text(left, bottom + 13, f"{low:.3g} to {high:.3g}", MUTED, 9, "start")
    for number, line in enumerate(lines):
        color = POLICY if number == 0 else POOR
        dots = [(*place(step, value), hollow[step]) for step, value in enumerate(line) if math.isfinite(value)]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in dots)
        yield f'<path d="M{way}" fill="none" stroke="{color}" stroke-width="1.3"/>'
        for x, y, undone in dots:
            fill = "white" if undone else color
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{fill}" stroke="{color}"/>'


WIDE, HIGH = 600, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 584, 40, 222


def _bars(counts: np.ndarray, edges: np.ndarray, mean: float) -> Iterator[str]:
    """The bars with their axes and the line of the mean."""
    low, high, most = float(edges[0]), float(edges[-1]), int(counts.max())

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

    def up(count: float) -> float:
        return _BOTTOM - count / most * (_BOTTOM - _TOP)

    for count in sorted({0, most // 2, most}):
        yield f'<path d="M{_LEFT} {up(count):.1f}H{_RIGHT}" stroke="{GRID}"/>'
        yield _text(_LEFT - 6, up(count) + 4, str(count), MUTED, 11, "end")
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        left, width = across(start) + 0.5, across(end) - across(start) - 1
        shape = f'x="{left:.1f}" y="{up(count):.1f}" width="{width:.1f}" height="{_BOTTOM - up(count):.1f}"'
        yield f'<rect {shape} fill="{POLICY}" fill-opacity="0.85"/>'
    for value in (low, (low + high) / 2, high):
        yield _text(across(value), _BOTTOM + 16, f"{value:+.2f}", MUTED, 11, "middle")
    yield f'<path d="M{across(mean):.1f} {_TOP - 8}V{_BOTTOM}" stroke="{INK}" stroke-width="1.4"/>'
    side = ("start", 5) if across(mean) < (_LEFT + _RIGHT) / 2 else ("end", -5)
    yield _text(across(mean) + side[1], _TOP, f"mean {mean:+.3f}", INK, 11, side[0])
    yield _text((_LEFT + _RIGHT) / 2, HIGH - 10, "reward", MUTED, 11, "middle")


def _marks(groups: Sequence[float], low: float, high: float) -> Iterator[str]:
    """A mark under the axis for each group's mean, and what they are."""
    for mean in groups:
        across = _LEFT + (mean - low) / (high - low) * (_RIGHT - _LEFT)
        yield f'<path d="M{across:.1f} {_BOTTOM + 1}v5" stroke="{FAIR}" stroke-width="1.6"/>'
    if groups:
        yield _text(_RIGHT, HIGH - 10, f"marks: means of {len(groups)} groups", FAIR, 11, "end")


def samples_went(counts: Mapping[str, int], quarantined: int, title: str = "Where the samples went") -> bytes:
    """A bar for each training mode, one for each reason to skip, one for rows in quarantine.

    An SVG, as `reward_histogram` is one.

    Args:
        counts: of a dataset; a reason is named `skip: <reason>`.
        quarantined: rows of the window that could not be read, and so gave no samples.
    """
    skipped = sorted((-number, name) for name, number in counts.items() if name.startswith("skip: "))
    trained = counts.get("policy_gradient", 0) + counts.get("recompute", 0)
    rows = [
        ("trainable", trained, POLICY),
        ("sft", counts.get("sft", 0), GOOD),
        *((name.replace("skip: ", "skipped: "), -number, POOR) for number, name in skipped),
        ("rows in quarantine", quarantined, FAIR),
    ]
    most = max(1, *(number for _, number, _ in rows))
    parts = [_text(12, 20, f"{title}  ({counts.get('samples', 0)})", INK, 13, "start", bold=True)]
    for place, (name, number, color) in enumerate(rows):
        top, long = 36 + place * _ROW_HIGH, number / most * (WIDE - _ROW_LEFT - 60)
        parts.append(_text(_ROW_LEFT - 8, top + 12, name, INK, 11, "end"))
        parts.append(f'<rect x="{_ROW_LEFT}" y="{top}" width="{long:.1f}" height="{_ROW_HIGH - 8}" fill="{color}"/>')
        parts.append(_text(_ROW_LEFT + long + 6, top + 12, str(number), MUTED, 11, "start"))
    high = 44 + len(rows) * _ROW_HIGH
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{high}" font-family="sans-serif">'
    return "".join([frame, f'<rect width="{WIDE}" height="{high}" fill="white"/>', *parts, "</svg>"]).encode()


_ROW_LEFT, _ROW_HIGH = 230, 26


def _text(x: float, y: float, words: str, color: str, size: int, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{color}"{weight}>{html.escape(words)}</text>'


def as_markdown(image: bytes, alt: str) -> str:
    """The picture as markdown with the data inline, so that a page shows it without asking any server."""
    kind = "svg+xml" if image.startswith(b"<svg") else "png"
    return f"![{alt}](data:image/{kind};base64,{base64.b64encode(image).decode('ascii')})"


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
