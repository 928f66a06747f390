"""The drawings of the report: the learning curve and bars of shares, as SVG that takes its colours from the page.

What the numbers mean is decided elsewhere. A drawing has a title and a description for who cannot see it, and a size
in pixels at which its letters are as large as those of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from babylon_assets.report.markup import Html, element, join, trusted
from babylon_assets.report.summary import PromotionSummary, WindowSummary

REFERENCES = ("oracle", "expert", "random")
SMOOTHING = 5
#: More points than this are drawn as a line only: a dot would be narrower than a pixel.
DOTS = 200
LEFT, RIGHT, TOP, BOTTOM = 40, 104, 14, 42
LETTER = 15


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a window and a reward lie in the drawing."""

    width: int
    height: int
    count: int
    low: float
    high: float

    def x(self, place: float) -> float:
        return LEFT + (self.width - LEFT - RIGHT) * (place / (self.count - 1) if self.count > 1 else 0.5)

    def y(self, value: float) -> float:
        return TOP + (self.height - TOP - BOTTOM) * (1 - (value - self.low) / (self.high - self.low))


def learning_curve(
    windows: Sequence[WindowSummary],
    promotions: Sequence[PromotionSummary],
    *,
    name: str,
    width: int = 920,
    height: int = 320,
) -> Html:
    """Mean reward of each window, its five-window mean, the references' means, and where a policy was promoted.

    Args:
        windows: oldest first; those without a reward are left out.
        name: sets the ids of this drawing's title apart from those of another on the same page.
    """
    known = [window for window in windows if window.reward is not None]
    rewards = [window.reward for window in known if window.reward is not None]
    references = _references(known)
    frame = _frame(width, height, [*rewards, *references.values()])
    frame = _Frame(width, height, len(rewards), frame.low, frame.high)
    smooth = trailing_means(rewards)
    ends = [("policy", smooth[-1]), *references.items()] if smooth else []
    parts = [
        _grid(frame),
        _window_names(frame, known),
        *(_reference(frame, kind, value) for kind, value in references.items()),
        element("polyline", points=_points(frame, rewards), class_="policy thin"),
        element("polyline", points=_points(frame, smooth), class_="policy thick"),
        *(_dot(frame, place, window) for place, window in enumerate(known) if len(known) <= DOTS),
        *_marks(frame, known, promotions),
        *_labels(frame, ends),
    ]
    return _svg(name, width, height, "Mean reward per window", describe(known, promotions), parts)


def describe(windows: Sequence[WindowSummary], promotions: Sequence[PromotionSummary]) -> str:
    """The learning curve in words."""
    known = [window for window in windows if window.reward is not None]
    if not known:
        return "No window has a reward yet."
    first, last = known[0], known[-1]
    description = f"{len(known)} windows, from {first.reward:.3f} in {first.id} to {last.reward:.3f} in {last.id}."
    means = ", ".join(f"{name} {value:.3f}" for name, value in _references(known).items())
    description += f" On the same boards, on average: {means}." if means else ""
    return f"{description} {len(promotions)} promotions and rollbacks."


def trailing_means(values: Sequence[float]) -> list[float]:
    """Mean of each value and those before it, at most SMOOTHING of them."""
    parts = [values[max(0, end - SMOOTHING) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values, about so many of them: 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.75)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def shares(parts: Sequence[tuple[str, int, str]], *, name: str, title: str, width: int = 920) -> Html:
    """One bar, divided as the counts are; each part is (label, count, class of its colour)."""
    total = sum(count for _, count, _ in parts)
    description = ", ".join(f"{label} {count:,}" for label, count, _ in parts)
    drawn, at = [], 0.0
    for label, count, kind in parts:
        wide = width * count / max(1, total)
        tip = element("title", f"{label}: {count:,} ({count / max(1, total):.0%})")
        drawn.append(element("rect", tip, x=f"{at:.1f}", y=0, width=f"{wide:.1f}", height=12, class_=f"fill-{kind}"))
        at += wide
    return _svg(name, width, 12, title, description, drawn, preserveAspectRatio="none", class_="bar")


def _svg(
    name: str, width: int, height: int, title: str, description: str, parts: Sequence[Html], **more: object
) -> Html:
    names = [element("title", title, id=f"{name}-title"), element("desc", description, id=f"{name}-desc")]
    labelled = {"aria-labelledby": f"{name}-title {name}-desc", "role": "img", "viewBox": f"0 0 {width} {height}"}
    return element("svg", *names, *parts, **labelled, **more)


def _references(windows: Sequence[WindowSummary]) -> dict[str, float]:
    """The mean of each reference over the windows that have it."""
    means = {}
    for name in REFERENCES:
        values = [window.references[name] for window in windows if window.references and name in window.references]
        if values:
            means[name] = sum(values) / len(values)
    return means


def _frame(width: int, height: int, values: Sequence[float]) -> _Frame:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.08 or 0.1
    return _Frame(width, height, 0, low - room, high + room)


def _points(frame: _Frame, values: Sequence[float]) -> Html:
    """Coordinates: numbers only, hence never cut as a text would be."""
    return trusted(" ".join(f"{frame.x(place):.1f},{frame.y(value):.1f}" for place, value in enumerate(values)))


def _grid(frame: _Frame) -> Html:
    lines = []
    for value in ticks(frame.low, frame.high):
        y, right = f"{frame.y(value):.1f}", frame.width - RIGHT
        lines.append(element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="zero" if abs(value) < 1e-9 else "grid"))
        lines.append(_text(f"{value:.2f}", LEFT - 6, frame.y(value) + 4, "axis", "end"))
    return join(lines)


def _window_names(frame: _Frame, windows: Sequence[WindowSummary]) -> Html:
    """Hours below the drawing, as many as have room; the day where it changes."""
    if not windows:
        return _text("no window has a reward yet", frame.width / 2, frame.height / 2, "axis", "middle")
    room = max(2, (frame.width - LEFT - RIGHT) // 64)
    every = max(1, -(-len(windows) // room))
    names, day = [], ""
    for place in range(0, len(windows), every):
        identity = windows[place].id
        x, y = frame.x(place), frame.height - BOTTOM + 18
        names.append(_text(identity[11:16], x, y, "axis", "middle"))
        if identity[:10] != day:
            day = identity[:10]
            names.append(_text(day[5:], x, y + LETTER, "axis", "middle"))
    return join(names)


def _reference(frame: _Frame, name: str, value: float) -> Html:
    y = f"{frame.y(value):.1f}"
    return element("line", x1=LEFT, x2=frame.width - RIGHT, y1=y, y2=y, class_=f"reference {name}")


def _dot(frame: _Frame, place: int, window: WindowSummary) -> Html:
    assert window.reward is not None  # of the known ones
    change = f", {window.parent} → {window.policy}" if window.policy else ""
    tip = element("title", f"{window.id}: {window.reward:.3f}{change}")
    return element("circle", tip, cx=f"{frame.x(place):.1f}", cy=f"{frame.y(window.reward):.1f}", r=3.2, class_="dot")


def _marks(frame: _Frame, windows: Sequence[WindowSummary], promotions: Sequence[PromotionSummary]) -> list[Html]:
    """A triangle on the axis where the policy of a window was promoted; pointing down, with a line, for a rollback."""
    places = {window.id: place for place, window in enumerate(windows)}
    drawn, floor = [], frame.height - BOTTOM
    for promotion in reversed(promotions):  # the newest last, on top
        if promotion.window not in places:
            continue
        x, back = frame.x(places[promotion.window]), promotion.kind == "rollback"
        tip = element("title", f"{promotion.kind} to {promotion.after or 'the base model'}: {promotion.why}")
        corners = (x, floor, floor - 9) if back else (x, floor - 9, floor)
        shape = f"M{corners[0]:.1f},{corners[1]} l-5.5,{corners[2] - corners[1]} h11 z"
        if back:
            drawn.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=floor, class_="rollback"))
        drawn.append(element("path", tip, d=shape, class_=f"mark {'back' if back else 'forth'}"))
    return drawn


def _labels(frame: _Frame, ends: Sequence[tuple[str, float]]) -> list[Html]:
    """Names of the lines at their right ends, pushed apart where they would cover one another."""
    labels, last = [], math.inf
    for name, value in sorted(ends, key=lambda end: end[1]):
        y = min(frame.y(value) + 4, last - LETTER)
        last = y
        labels.append(_text(f"{name} {value:.2f}", frame.width - RIGHT + 8, y, f"label {name}", "start"))
    return labels


def _text(shown: str, x: float, y: float, kind: str, anchor: str) -> Html:
    return element("text", shown, x=f"{x:.1f}", y=f"{y:.1f}", class_=kind, text_anchor=anchor)
