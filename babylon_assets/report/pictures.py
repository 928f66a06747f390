"""The pictures of one window: its rewards, where its samples went, the steps of its training, what policies earned.

Each function turns plain numbers into an SVG that stands alone. What is no number is left out of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from babylon_assets.domain.display_text import as_number, format_number
from babylon_assets.report.rendering import render
from babylon_assets.report.scales import (
    Scale,
    bounds,
    differ,
    finite,
    mean,
    places,
    points,
    thin_out,
    thin_out_near,
    ticks,
)

WIDTH, HEIGHT = 600, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 584, 40, 222
#: Marks of groups, steps and reasons that one picture shows.
MOST_MARKS, MOST_STEPS, MOST_REASONS = 200, 300, 12
#: Of a training's steps: metrics that share a panel, and the panel's title.
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
_PANEL_WIDTH, _PANEL_HEIGHT = 190, 104
_ROW_HEIGHT = 26
#: Of the names at the left of rows: pixels that a character takes at most on average, and the most characters.
_CHARACTER, _MOST_CHARACTERS = 7.4, 56
#: Pixels that bars and intervals have at least.
_LEAST_ROW = 300


def draw_rewards(
    rewards: Sequence[object], title: str = "Rewards of the samples", groups: Iterable[Sequence[object]] = ()
) -> str:
    """How the rewards of a window are distributed, with their mean; the title counts those that are not known.

    Args:
        groups: the rewards of each group; its mean is marked under the bars. A sample is worth what it is beside it.
    """
    known = finite(rewards)
    unknown = len(rewards) - len(known)
    counts, low, high = _histogram(known)
    across, up = Scale(low, high, _LEFT, _RIGHT), Scale(0, max(1, *counts), _BOTTOM, _TOP)
    edges = [_LEFT + (_RIGHT - _LEFT) * place / len(counts) for place in range(len(counts) + 1)]
    means = sorted(mean(group) for group in map(finite, groups) if group)
    middle = mean(known) if known else 0.0
    return render(
        "rewards.svg",
        **_frame("rewards", title, f"({len(known)} known, {unknown} not yet)" if unknown else f"({len(known)})"),
        frame={"left": _LEFT, "right": _RIGHT, "top": _TOP, "floor": _BOTTOM},
        grid=[(up(count), count) for count in sorted({0, max(counts) // 2, max(counts)})],
        bars=[(left + 0.5, up(count), edges[1] - edges[0] - 1) for left, count in zip(edges, counts, strict=False)],
        ticks=[(across(value), format_number(value, padded=True)) for value in (low, low / 2 + high / 2, high)],
        mean=(across(middle), format_number(middle, padded=True)) if known else None,
        groups=len(means),
        marks=[across(min(max(value, low), high)) for value in thin_out(means, MOST_MARKS)],
    )


def _histogram(values: Sequence[float]) -> tuple[list[int], float, float]:
    """How many values lie in each of some bins of the same width, and where the first begins and the last ends."""
    low, high = bounds(values)
    bins = min(30, max(8, int(math.sqrt(len(values)) * 2)))
    counts, place = [0] * bins, Scale(low, high, 0, bins)
    for value in values if values and differ(min(values), max(values)) else ():
        counts[min(bins - 1, int(place(value)))] += 1
    counts[bins // 2] += len(values) - sum(counts)  # those that differ by rounding only
    return counts, low, high


def draw_training_steps(steps: Sequence[Mapping[str, Any]], title: str = "Optimizer steps") -> str:
    """Small multiples over the optimizer steps of a training: a panel for each metric they have, undone ones hollow.

    Args:
        steps: metrics by name, `tokens` and `seconds` among them; undone steps carry `undone`.
    """
    shown = [{**step, "tokens_per_second": _rate(step)} for step in thin_out(steps, MOST_STEPS)]
    undone = ["undone" in step for step in shown]
    panels: list[dict[str, Any]] = []
    for names, heading in _STEP_PANELS:
        lines = [[as_number(step.get(name)) for step in shown] for name in names]
        known = finite(value for line in lines for value in line)
        if known:
            corner = (12 + len(panels) % 4 * _PANEL_WIDTH, 32 + len(panels) // 4 * _PANEL_HEIGHT)
            panels.append(_panel(corner, heading, lines, undone, known))
    high = 40 + max(1, -(-len(panels) // 4)) * _PANEL_HEIGHT
    frame = _frame("steps", title, f"({len(steps)})", 24 + 4 * _PANEL_WIDTH, high)
    return render("training_steps.svg", **frame, panels=panels)


def _rate(step: Mapping[str, Any]) -> float:
    tokens, seconds = as_number(step.get("tokens")), as_number(step.get("seconds"))
    return tokens / seconds if seconds else math.nan


def _panel(
    corner: tuple[int, int],
    heading: str,
    lines: Sequence[Sequence[float]],
    undone: Sequence[bool],
    known: Sequence[float],
) -> dict[str, Any]:
    """One panel: its title, its least and greatest value, and a line with a dot per step for each metric."""
    left, top = corner[0] + 4, corner[1] + 22
    right, floor = corner[0] + _PANEL_WIDTH - 14, corner[1] + _PANEL_HEIGHT - 16
    across = places(len(undone), left, right)
    up = Scale(*bounds(known), floor, top)
    drawn = [
        [(across[step], up(value), undone[step]) for step, value in enumerate(line) if not math.isnan(value)]
        for line in lines
    ]
    return {
        **{"left": left, "right": right, "top": top, "floor": floor, "heading": heading},
        "range": f"{format_number(min(known), padded=True)} to {format_number(max(known), padded=True)}",
        "lines": [(points((x, y) for x, y, _ in line), line) for line in drawn],
    }


def draw_sample_fates(counts: Mapping[str, int], quarantined: int, title: str = "Where the samples went") -> str:
    """A bar for each training mode, one for each reason to skip, one for rows in quarantine.

    Args:
        counts: of a dataset; a reason is named `skip: <reason>`.
        quarantined: rows of the window that could not be read, and so gave no samples.
    """
    reasons = [name for name in counts if name.startswith("skip: ")]
    skipped = sorted((-counts[name], name.replace("skip: ", "skipped: ", 1)) for name in reasons)
    others = skipped[MOST_REASONS:]
    rows = [
        ("trainable", counts.get("policy_gradient", 0) + counts.get("recompute", 0), "busy"),
        ("sft", counts.get("sft", 0), "good"),
        *((name, -number, "calm") for number, name in skipped[:MOST_REASONS]),
        *([(f"skipped: {len(others)} other reasons", -sum(number for number, _ in others), "calm")] if others else []),
        ("rows in quarantine", quarantined, "fair"),
    ]
    names, left, width = _row_names([name for name, _, _ in rows])
    along = Scale(0, max(1, *(number for _, number, _ in rows)), 0, width - left - 60)
    frame = _frame("fates", title, f"({counts.get('samples', 0)})", width, 44 + len(rows) * _ROW_HEIGHT)
    bars = [
        (36 + place * _ROW_HEIGHT, along(number), name, number, kind)
        for place, (name, (_, number, kind)) in enumerate(zip(names, rows, strict=True))
    ]
    return render("sample_fates.svg", **frame, left=left, thick=_ROW_HEIGHT - 8, bars=bars)


def _row_names(names: Sequence[str]) -> tuple[list[str], int, int]:
    """The names at the left of rows, cut where they are too long; where the rows begin; how wide the drawing is."""
    cut = [name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…" for name in names]
    left = 16 + round(_CHARACTER * max(map(len, cut), default=0))
    return cut, left, max(WIDTH, left + _LEAST_ROW)


class MeasuredPolicy(NamedTuple):
    """What a policy earned in an evaluation, with its interval where one is known."""

    name: str
    reward: float
    low: float | None = None
    high: float | None = None


def draw_evaluations(
    panels: Mapping[str, Sequence[MeasuredPolicy]], title: str = "Rewards of the policies, with their 95% intervals"
) -> str:
    """A panel for each kind of evaluation, with a dot and an interval for each policy; all have the same scale."""
    every = [row for rows in panels.values() for row in rows]
    names, left, width = _row_names([row.name for row in every])
    right = width - 80
    across = Scale(*bounds(finite(end for row in every for end in (row.reward, row.low, row.high)), 0.08), left, right)
    shown, drawn, top = iter(names), [], 36
    for kind, rows in panels.items():
        lines = [
            (top + 22 + (place + 0.5) * _ROW_HEIGHT, next(shown), *_placed(row, across))
            for place, row in enumerate(rows)
        ]
        floor = top + 22 + len(rows) * _ROW_HEIGHT
        drawn.append({"heading": kind, "top": top, "floor": floor, "rows": lines})
        top = floor + 12
    marks = [(across(value), format_number(value)) for value in ticks(across.low, across.high)]
    frame = _frame("evaluations", title, "", width, top + 16)
    return render(
        "evaluations.svg", **frame, left=left, right=right, floor=top, ticks=thin_out_near(marks, 56), panels=drawn
    )


def _placed(row: MeasuredPolicy, across: Scale) -> tuple[float | None, tuple[float, float] | None, str]:
    """Where a reward and its interval lie, and the reward in words; what is no number has no place."""
    ends = finite([row.low, row.high])
    reward = as_number(row.reward)
    known = not math.isnan(reward)
    return (
        across(reward) if known else None,
        (across(ends[0]), across(ends[1])) if len(ends) == 2 else None,
        format_number(reward, padded=True) if known else "",
    )


def _frame(name: str, title: str, note: str, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    """What every drawing that stands alone has."""
    words = f"{title}  {note}"
    return {"name": name, "alone": True, "width": width, "height": height, "title": words, "description": words}
