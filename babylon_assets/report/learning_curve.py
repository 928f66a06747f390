"""The learning curve: mean reward over the windows, beside other policies, with what became of the checkpoints.

One drawing serves the report, the page of a window in Dagster, and the demo. In the report it takes its colours from
the page; alone it is a file with a style of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from babylon_assets.domain.display_text import as_number, format_number, format_plural
from babylon_assets.report.rendering import render
from babylon_assets.report.scales import (
    SMOOTHING,
    Scale,
    bounds,
    mean,
    places,
    points,
    smoothing_of,
    thin_out_near,
    ticks,
    trailing_means,
)

REFERENCES = ("oracle", "expert", "random")
#: More points than this, or points nearer than so many pixels, are drawn as a line only: dots would cover it.
DOTS, DOT_GAP = 200, 4
#: Marks of a kind that would cover one another are left out; each is 11 pixels wide.
MARK_GAP = 12
LEFT, RIGHT, TOP, BOTTOM = 40, 120, 14, 42
LETTER = 15
#: Pixels that a character of a label takes at most on average.
CHARACTER = 7.6
#: Room for the title, and for what the marks mean, of a drawing that stands alone.
_TITLE, _LEGEND = 22, 18


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One window of a learning curve.

    Attributes:
        window: the window's id.
        reward: mean reward of its samples.
        references: mean reward of other policies on the very same boards, by name (`oracle`, `expert`, `random`).
        note: what else is said of it.
    """

    window: str
    reward: float
    references: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class CurveMark:
    """What became of the checkpoint that was trained on a window.

    Attributes:
        kind: `promoted`, `returned to`, `rejected` or `rolled back`.
        note: what else is said of it.
    """

    window: str
    kind: str
    note: str = ""


def draw_learning_curve(
    known: Iterable[CurvePoint],
    marks: Iterable[CurveMark] = (),
    *,
    name: str = "curve",
    label: str = "policy",
    alone: bool = True,
    width: int = 920,
    height: int = 320,
) -> str:
    """The learning curve as SVG: each window, a trailing mean, the references, a mark for each decision.

    Args:
        known: the windows, oldest first; one whose reward is no number is left out.
        marks: oldest first; one of another window is left out.
        name: sets the ids of this drawing apart from those of another on the same page.
        label: what the line is of.
        alone: with a title, a legend and a style of its own; else as a part of a page.
        width, height: in pixels.
    """
    numbers = [replace(point, reward=as_number(point.reward)) for point in known]
    shown = [point for point in numbers if not math.isnan(point.reward)]
    span = smoothing_of(len(shown))
    references, last_means = _references(shown, span)
    smooth = trailing_means([point.reward for point in shown], span)
    beside = [value for line in references.values() for value in line.values()]
    low, high = bounds([*(point.reward for point in shown), *beside], 0.08)
    top, floor = TOP + _TITLE * alone, height - BOTTOM - _LEGEND * alone
    up = Scale(low, high, floor, top)
    grid = [(up(value), format_number(value), abs(value) < 1e-9 * (high - low)) for value in ticks(low, high)]
    ends = {"policy": smooth[-1]} if smooth else {}
    labels = _labels([(kind, value, up(value) + 4) for kind, value in (ends | last_means).items()], {"policy": label})
    left = max(LEFT, 12 + _pixels([words for _, words, _ in grid]))
    right = width - max(RIGHT, 16 + _pixels([words for _, words, _ in labels]))
    across = places(len(shown), left, right)
    place_of = {point.window: x for point, x in zip(shown, across, strict=True)}
    drawn = [mark for mark in marks if mark.window in place_of]
    are_apart = len(shown) <= min(DOTS, (right - left) // DOT_GAP)
    return render(
        "learning_curve.svg",
        name=name,
        alone=alone,
        width=width,
        height=height,
        title="Mean reward per window",
        description=describe(shown, drawn),
        frame={"left": left, "right": right, "top": top, "floor": floor, "letter": LETTER},
        grid=grid,
        names=_window_names([point.window for point in shown], across, max(2, (right - left) // 64)),
        references=[
            (kind, points((across[at], up(value)) for at, value in line.items())) for kind, line in references.items()
        ],
        thin=points((x, up(point.reward)) for x, point in zip(across, shown, strict=True)),
        thick=points((x, up(value)) for x, value in zip(across, smooth, strict=True)),
        dots=[(x, up(point.reward), point) for x, point in zip(across, shown, strict=True) if are_apart],
        marks=_set_apart([(place_of[mark.window], mark) for mark in drawn]),
        span=span,
        labels=labels,
    )


def _pixels(words: Sequence[str]) -> int:
    """How wide the longest of some labels may be."""
    return round(CHARACTER * max(map(len, words), default=0))


def describe(shown: Sequence[CurvePoint], marks: Sequence[CurveMark]) -> str:
    """The learning curve in words."""
    if not shown:
        return "No window has a reward yet."
    first, last = shown[0], shown[-1]
    words = f"{len(shown)} windows, from {format_number(first.reward)} in {first.window} "
    words += f"to {format_number(last.reward)} in {last.window}."
    means = ", ".join(f"{kind} {format_number(value)}" for kind, value in _reference_means(shown).items())
    words += f" On the same boards, on average: {means}." if means else ""
    return f"{words} {format_plural(len(marks), 'decision')} marked."


def _set_apart(marks: Sequence[tuple[float, CurveMark]]) -> list[tuple[float, CurveMark]]:
    """The marks that can be told apart, those of each kind for themselves."""
    kinds = dict.fromkeys(mark.kind for _, mark in marks)
    return [
        placed for kind in kinds for placed in thin_out_near([(x, m) for x, m in marks if m.kind == kind], MARK_GAP)
    ]


def _reference_means(shown: Sequence[CurvePoint]) -> dict[str, float]:
    """The mean of each reference over the windows that have it."""
    lines = {kind: list(_reference(shown, kind).values()) for kind in REFERENCES}
    return {kind: mean(values) for kind, values in lines.items() if values}


def _reference(shown: Sequence[CurvePoint], kind: str) -> dict[int, float]:
    """What a reference would have earned in each window that knows it, by the window's place."""
    values = [as_number(point.references.get(kind)) for point in shown]
    return {place: value for place, value in enumerate(values) if not math.isnan(value)}


def _references(shown: Sequence[CurvePoint], span: int) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """The lines of the references, by the place of the window, and the mean of the last windows of each.

    A line is drawn window by window, and as trailing means where many windows lie on a few pixels.
    """
    lines = {kind: values for kind in REFERENCES if (values := _reference(shown, kind))}
    means = {
        kind: dict(zip(line, trailing_means(list(line.values()), span), strict=True)) for kind, line in lines.items()
    }
    return means if span > SMOOTHING else lines, {kind: list(line.values())[-1] for kind, line in means.items()}


def _window_names(windows: Sequence[str], across: Sequence[float], room: int) -> list[tuple[float, str, str]]:
    """The place, the time and the day of as many windows as have room; the day where it changes."""
    names, day = [], ""
    for place in range(0, len(windows), max(1, -(-len(windows) // room))):
        window = windows[place]
        names.append((across[place], window[11:16], window[5:10] if window[:10] != day else ""))
        day = window[:10]
    return names


def _labels(ends: Sequence[tuple[str, float, float]], names: Mapping[str, str]) -> list[tuple[str, str, float]]:
    """Names of the lines at their right ends, pushed apart where they would cover one another."""
    labels, last = [], math.inf
    for kind, value, height in sorted(ends, key=lambda end: end[1]):
        last = min(height, last - LETTER)
        labels.append((kind, f"{names.get(kind, kind)} {format_number(value, padded=True)}", last))
    return labels
