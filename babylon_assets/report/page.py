"""The page of the report: from the facts to one HTML document that asks nobody for anything.

Its content security policy forbids scripts and requests. What is drawn is in `chart`, how it looks in `style`, what a
person must do in `needs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from babylon_assets.report import chart
from babylon_assets.report.markup import Html, element, join, trusted
from babylon_assets.report.needs import Need, needs
from babylon_assets.report.style import STYLE
from babylon_assets.report.summary import Report, WindowSummary
from babylon_assets.report.tables import ReportColumn, ago, dash, money, number, table, when, whole

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Rows of the table of windows: a day of hours, and up to a week on a click. The curve has a month.
FIRST_ROWS, MOST_ROWS, MOST_POINTS = 24, 168, 720
COLOURS = {"trained": "good", "ready": "busy", "open": "busy", "thin": "calm", "skipped": "fair", "failed": "poor"}
SAMPLES = {"policy_gradient": "good", "recompute": "busy", "sft": "fair"}


def page(report: Report) -> str:
    """The whole document."""
    open_needs = needs(report)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{report.chain}: the state of the loop"),
        element("style", trusted(STYLE)),
    )
    body = element(
        "body", _header(report, open_needs), element("main", *_sections(report, open_needs)), _footer(report)
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(report: Report, open_needs: Sequence[Need]) -> list[Html]:
    """The sections in the order in which they matter; those with nothing to say are left out."""
    return [
        _state(report),
        *([_needs(open_needs)] if open_needs else []),
        _curve(report),
        _windows(report),
        *([_samples(report)] if report.samples else []),
        *([_promotions(report)] if report.promotions else []),
        *([_evaluations(report)] if report.evaluations else []),
        _quarantine(report),
        *([_costs(report)] if report.costs else []),
    ]


def _header(report: Report, open_needs: Sequence[Need]) -> Html:
    count = len(open_needs)
    text = f"{count} thing{' needs' if count == 1 else 's need'} a person" if count else "nothing needs a person"
    return element(
        "header",
        element("h1", report.chain),
        element("p", f"The state of the loop at {when(report.made_at)} UTC, in {report.place}", class_="muted"),
        element("a", text, href="#needs", class_="verdict act") if count else element("p", text, class_="verdict well"),
    )


def _footer(report: Report) -> Html:
    return element(
        "footer",
        "Times are UTC. Written by ",
        element("code", "babylon report"),
        "; the same numbers for scripts: ",
        element("code", "babylon windows --json"),
        " and ",
        element("code", "babylon status --json"),
        ".",
    )


def _section(title: str, *content: object, name: str, class_: str | None = None) -> Html:
    heading = element("h2", title, id=f"{name}-heading")
    return element("section", heading, *content, id=name, class_=class_, aria_labelledby=f"{name}-heading")


def _state(report: Report) -> Html:
    done = [window for window in report.windows if window.state != "open"]
    newest = done[-1] if done else None
    head, promoted, late = report.head, report.promoted, report.late
    facts = [
        ("running", *_running(report)),
        ("newest checkpoint", head.name if head else "none yet", _creation_line(report, head.made_at) if head else ""),
        ("promoted policy", promoted.name if promoted else "none yet", _promoted(report)),
        ("newest window", newest.id if newest else "none yet", newest.state if newest else ""),
        ("late", f"{len(late):,} window{'' if len(late) == 1 else 's'}", f"since {late[0].id}" if late else "in step"),
        ("free disk", "not known" if report.free_gib is None else f"{report.free_gib:.1f} GiB", ""),
    ]
    terms = [
        element("div", element("dt", name), element("dd", value, element("small", more) if more else None))
        for name, value, more in facts
    ]
    return _section("Now", element("dl", *terms), name="now")


def _running(report: Report) -> tuple[str, str]:
    if not report.running:
        return "nothing", "no training is under way"
    job = report.running[-1]
    since = ago(report.made_at - job.started_at)
    return f"{job.state} {job.window}", f"on {job.backend or 'an unknown backend'}, begun {since}"


def _creation_line(report: Report, at: datetime) -> str:
    return f"made {ago(report.made_at - at)}"


def _promoted(report: Report) -> str:
    if not report.promotions:
        return "no policy was promoted"
    return f"{report.promotions[0].kind} {ago(report.made_at - report.promotions[0].at)}"


def _needs(open_needs: Sequence[Need]) -> Html:
    items = [
        element(
            "li",
            element("b", need.title),
            element("p", need.detail),
            element("code", need.command) if need.command else need.advice,
            element("small", f"docs/incidents/{need.page}.md", class_="muted"),
        )
        for need in open_needs
    ]
    return _section("What needs a person", element("ul", *items, class_="needs"), name="needs", class_="act")


def _curve(report: Report) -> Html:
    windows = report.windows[-MOST_POINTS:]
    hint = (
        f"Thin: each window. Thick: mean of the last {chart.SMOOTHING}. Dashed: other policies on the same boards, on "
        "average. Triangles on the axis: the policy that was trained on this window was promoted (up) or returned to "
        "by a rollback (down)."
    )
    return _section(
        "Learning curve",
        element("div", chart.learning_curve(windows, report.promotions, name="curve"), class_="wide"),
        element(
            "div",
            chart.learning_curve(windows, report.promotions, name="curve-narrow", width=360, height=280),
            class_="narrow",
        ),
        element("p", hint, class_="hint"),
        name="curve-section",
    )


def _windows(report: Report) -> Html:
    states = Counter(window.state for window in report.windows)
    parts = [(state, states[state], colour) for state, colour in COLOURS.items() if states[state]]
    columns = [
        ReportColumn("window", lambda window: window.id, "whole", head=True),
        ReportColumn("state", lambda window: _mark(window.state)),
        ReportColumn("trajectories", lambda window: whole(window.trajectories), "number wide"),
        ReportColumn("samples", lambda window: whole(window.samples), "number wide"),
        ReportColumn("tokens", lambda window: whole(window.tokens), "number wide"),
        ReportColumn("reward", lambda window: number(window.reward), "number"),
        ReportColumn("oracle", lambda window: number((window.references or {}).get("oracle")), "number wide"),
        ReportColumn("what came of it", _result, "told"),
    ]
    return _section(
        "Windows",
        chart.shares(parts, name="states", title="Windows by state") if parts else None,
        element("div", *(element("span", _mark(s, f"{s} {n:,}")) for s, n, _ in parts), class_="legend"),
        *_folded(columns, list(reversed(report.windows))),
        name="windows",
    )


def _folded(columns: Sequence[ReportColumn], rows: Sequence[WindowSummary]) -> list[Html]:
    """The newest windows as a table, those before them on a click, and how many are not shown at all."""
    if not rows:
        return [element("p", "No windows yet.", class_="muted")]
    shown = [table(columns, rows[:FIRST_ROWS], "newest first")]
    older = rows[FIRST_ROWS:MOST_ROWS]
    if older:
        summary = element("summary", f"{len(older):,} older windows")
        shown.append(element("details", summary, table(columns, older, "older windows, newest first")))
    if len(rows) > MOST_ROWS:
        shown.append(element("p", f"{len(rows) - MOST_ROWS:,} more are left out.", class_="hint"))
    return shown


def _mark(state: str, text: str | None = None) -> Html:
    return element("span", text or state, class_=f"state {COLOURS.get(state, 'calm')}")


def _result(window: WindowSummary) -> object:
    if window.policy is None:
        return window.reason or ""
    change = _way(window.parent, window.policy)
    end = f"rejected: {window.rejected}" if window.rejected else None
    more = [part for line in (end, window.reason) if line for part in (element("br"), line)]
    return join([change, *more])


def _way(before: str | None, after: str) -> Html:
    """From one policy to the next; a line breaks at the arrow only."""
    return join([element("span", dash(before), class_="whole"), " → ", element("b", after, class_="whole")])


def _samples(report: Report) -> Html:
    counts = {name: number for name, number in (report.samples or {}).items() if number}
    trained = [(name.replace("_", " "), counts[name], colour) for name, colour in SAMPLES.items() if name in counts]
    skipped = sorted(
        ((name.removeprefix("skip: "), number) for name, number in counts.items() if name.startswith("skip: ")),
        key=lambda pair: -pair[1],
    )
    parts = [*trained, *((f"skipped: {why}", number, "calm") for why, number in skipped)]
    total = max(1, sum(number for _, number, _ in parts))
    columns = [
        ReportColumn("trains as", _swatch, head=True),
        ReportColumn("samples", lambda part: whole(part[1]), "number"),
        ReportColumn("share", lambda part: f"{part[1] / total:.1%}", "number"),
    ]
    return _section(
        "Where the samples went",
        chart.shares(parts, name="samples-bar", title="Samples by what they train as"),
        table(columns, parts, "of the datasets of all windows"),
        name="samples",
    )


def _swatch(part: tuple[str, int, str]) -> Html:
    return element("span", part[0], class_=f"state {part[2]}")


def _promotions(report: Report) -> Html:
    columns = [
        ReportColumn("when", lambda row: when(row.at), "whole", head=True),
        ReportColumn("what", lambda row: element("span", row.kind, class_=f"state {_colour(row.kind)}")),
        ReportColumn("from → to", lambda row: _way(row.before, row.after or "base model")),
        ReportColumn("by", lambda row: row.by, "wide"),
        ReportColumn("why", lambda row: row.why, "told"),
    ]
    return _section("Promotions", table(columns, report.promotions[:MOST_ROWS], "newest first"), name="promotions")


def _colour(kind: str) -> str:
    return "poor" if kind == "rollback" else "good"


def _evaluations(report: Report) -> Html:
    columns = [
        ReportColumn("policy", lambda row: row.policy, head=True),
        ReportColumn("evaluation", lambda row: row.evaluation),
        ReportColumn("value", lambda row: number(row.value), "number"),
        ReportColumn("interval", lambda row: f"{number(row.low)} to {number(row.high)}", "number"),
        ReportColumn("against", lambda row: dash(row.baseline), "wide"),
        ReportColumn("when", lambda row: when(row.at), "wide"),
    ]
    return _section("Evaluations", table(columns, report.evaluations, "newest first"), name="evaluations")


def _quarantine(report: Report) -> Html:
    if not report.quarantine:
        text = "No row is in quarantine: every row of the windows above could be read."
        return _section("Quarantine", element("p", text, class_="muted"), name="quarantine")
    columns = [
        ReportColumn("reason", lambda row: row.reason, "told", head=True),
        ReportColumn("rows", lambda row: whole(row.rows), "number"),
        ReportColumn("windows", lambda row: whole(row.windows), "number"),
        ReportColumn("newest", lambda row: when(row.newest), "wide"),
        ReportColumn("such as", lambda row: f"{row.trajectory} at {row.place}", "told"),
    ]
    rows = sum(row.rows for row in report.quarantine)
    caption = f"{rows:,} rows that could not be read; bad behaviour is never put here"
    return _section("Quarantine", table(columns, report.quarantine, caption), name="quarantine")


def _costs(report: Report) -> Html:
    columns = [
        ReportColumn("backend", lambda cost: cost.backend, head=True),
        ReportColumn("jobs", lambda cost: whole(cost.jobs), "number"),
        ReportColumn("training time", lambda cost: _long(cost.seconds), "number"),
        ReportColumn("tokens", lambda cost: whole(cost.tokens), "number wide"),
        ReportColumn("today", lambda cost: money(cost.usd_today), "number"),
        ReportColumn("in all", lambda cost: money(cost.usd), "number"),
    ]
    caption = "US dollars, estimated from SERVERLESS_USD_PER_MILLION_TOKENS; training on this machine costs none"
    return _section("Cost", table(columns, report.costs, caption), name="cost")


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))
