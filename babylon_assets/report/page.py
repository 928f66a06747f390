"""The page of the report: from the facts to one HTML document that asks nobody for anything.

Its content security policy forbids scripts and requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from markupsafe import Markup

from babylon_assets.domain.display_text import format_plural
from babylon_assets.report.attention import list_needs
from babylon_assets.report.guides import render_guide
from babylon_assets.report.learning_curve import CurveMark, CurvePoint, draw_learning_curve
from babylon_assets.report.rendering import MISSING, format_when, render
from babylon_assets.report.scales import smoothing_of
from babylon_assets.report.summary import PromotionSummary, Report, WindowSummary

#: Rows of the table of windows: a day of hours, and up to a week on a click. The curve has a month.
FIRST_ROWS, MOST_ROWS, MOST_POINTS = 24, 168, 720
COLOURS = {"trained": "good", "ready": "busy", "open": "busy", "thin": "calm", "skipped": "fair", "failed": "poor"}
SAMPLES = {"policy_gradient": "good", "recompute": "busy", "sft": "fair"}


def render_page(report: Report) -> str:
    """The whole document."""
    states = Counter(window.state for window in report.windows)
    newest = list(reversed(report.windows))
    needs, guides = list_needs(report), report.guides or {}
    pages = dict.fromkeys(need.page for need in needs)
    drawn = _drawn(report)
    understood = [window for window in newest if window.understanding is not None][:FIRST_ROWS]
    return render(
        "page.html",
        report=report,
        needs=needs,
        guides=[(page, render_guide(guides[page])) for page in pages if page in guides],
        facts=list(_facts(report)),
        curves=[("wide", _curve(report)), ("narrow", _curve(report, name="curve-narrow", width=360, height=280))],
        span=smoothing_of(len(drawn)),
        colours=COLOURS,
        missing=MISSING,
        states=[(state, states[state], colour) for state, colour in COLOURS.items() if states[state]],
        newest=newest[:FIRST_ROWS],
        older=newest[FIRST_ROWS:MOST_ROWS],
        left_out=len(newest) - MOST_ROWS,
        understood=understood,
        has_references=any(window.references for window in drawn),
        has_marks=not {window.id for window in drawn}.isdisjoint(promotion.window for promotion in report.promotions),
        has_luck=any(_beats_oracle(window) for window in drawn),
        has_oracle=any("oracle" in (window.references or {}) for window in newest),
        has_trades=any("trades" in (window.understanding or {}) for window in understood),
        fates=_sample_fates(report),
    )


def _facts(report: Report) -> Iterator[tuple[str, str, str]]:
    """The state of the loop when the page is written: what it is, its value, and a word about it."""
    head, overdue = report.head, report.overdue
    job = report.running[-1] if report.running else None
    newest = next((window for window in reversed(report.windows) if window.state != "open"), None)
    last = report.promotions[0] if report.promotions else None
    if job is None:
        yield "running", "nothing", "no training is under way"
    else:
        since = format_when(job.started_at)
        yield "running", f"{job.state} {job.window}", f"on {job.backend or 'an unknown backend'}, begun at {since}"
    made_at = f"made at {format_when(head.made_at)}" if head else ""
    yield "newest checkpoint", head.name if head else "none yet", made_at
    decided = f"{last.kind} at {format_when(last.at)}" if last else "no policy was promoted"
    yield "served policy", report.promoted.name if report.promoted else "none yet", decided
    yield "newest window", newest.id if newest else "none yet", newest.state if newest else ""
    yield "overdue", format_plural(len(overdue), "window"), f"since {overdue[0].id}" if overdue else "in step"
    yield "free disk", "not known" if report.free_gib is None else f"{report.free_gib:.1f} GiB", ""


def _curve(report: Report, name: str = "curve", width: int = 920, height: int = 320) -> Markup:
    """The learning curve as markup; a template made it."""
    known = [_curve_point(window) for window in _drawn(report)]
    marks = [_curve_mark(promotion) for promotion in reversed(report.promotions) if promotion.window is not None]
    return Markup(draw_learning_curve(known, marks, name=name, alone=False, width=width, height=height))


def _drawn(report: Report) -> list[WindowSummary]:
    """The windows of the curve: the newest whose reward is known."""
    return [window for window in report.windows[-MOST_POINTS:] if window.reward is not None]


def _beats_oracle(window: WindowSummary) -> bool:
    oracle = (window.references or {}).get("oracle")
    return oracle is not None and window.reward is not None and window.reward > oracle


def _curve_point(window: WindowSummary) -> CurvePoint:
    change = f"{window.parent} → {window.policy}" if window.policy else ""
    return CurvePoint(window.id, window.reward or 0.0, window.references or {}, change)


def _curve_mark(promotion: PromotionSummary) -> CurveMark:
    kind = "returned to" if promotion.kind == "rollback" else "promoted"
    note = f"{promotion.kind} to {promotion.after or 'the base model'}: {promotion.why}"
    return CurveMark(promotion.window or "", kind, note)


def _sample_fates(report: Report) -> list[tuple[str, int, str]]:
    """How many samples train as what, and why others do not: the name, the count and the colour of each."""
    counts = {name: number for name, number in (report.samples or {}).items() if number}
    trained = [(name.replace("_", " "), counts[name], colour) for name, colour in SAMPLES.items() if name in counts]
    skipped = [
        (f"skipped: {name.removeprefix('skip: ')}", number, "calm")
        for name, number in counts.items()
        if name.startswith("skip: ")
    ]
    return [*trained, *sorted(skipped, key=lambda row: -row[1])]
