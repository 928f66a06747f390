"""What of a report needs a person, and what to do about it. Each rule is one small function of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from babylon_assets.domain.policies import BRANCH
from babylon_assets.report.summary import LEAST_DISK_GIB, MOST_IN_QUARANTINE, Report, WindowSummary

NAMED = 4


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a person must act on.

    Attributes:
        title: what it is, with its number.
        detail: where and why, as the ledger has it; may hold texts that agents made.
        command: what to type.
        advice: what to do where no command does it.
        page: the page of docs/incidents that explains it, without its ending.
    """

    title: str
    detail: str
    page: str
    command: str = ""
    advice: str = ""


def list_needs(report: Report) -> list[Need]:
    """Everything that needs a person, the most urgent first."""
    rules = (_disk, _failed, _jobs, _silent, _overdue, _skipped, _quarantine, _odd_ids)
    return [need for rule in rules for need in rule(report)]


def _disk(report: Report) -> Iterator[Need]:
    if report.free_gib is not None and report.free_gib < LEAST_DISK_GIB:
        yield Need(
            f"{report.free_gib:.1f} GiB of disk are free",
            f"checkpoints are written there; under {LEAST_DISK_GIB:.0f} GiB training may fail in the middle",
            "disk-full",
            command="babylon prune --keep 24 --dry-run",
        )


def _failed(report: Report) -> Iterator[Need]:
    failed = [window for window in report.windows if window.state == "failed"]
    if failed:
        yield Need(
            _counted(len(failed), "window", "failed"),
            _listed(failed),
            "windows-stay-failed",
            command=f"babylon train {failed[0].id}",
        )


def _jobs(report: Report) -> Iterator[Need]:
    marked = {window.id for window in report.windows if window.state == "failed"}
    jobs = [job for job in report.failed if job.window not in marked]
    if jobs:
        text = "; ".join(f"{job.window}: {job.reason}" for job in jobs[:NAMED])
        yield Need(
            f"{_counted(len(jobs), 'training job', 'was' if len(jobs) == 1 else 'were')} refused or failed",
            text + _more(len(jobs)),
            "windows-stay-failed",
            command=f"babylon train {jobs[0].window}{_on_branch(jobs[0].chain)}",
        )


def _silent(report: Report) -> Iterator[Need]:
    for job in report.running:
        silent = report.made_at - job.heartbeat
        if silent > job.silent_after:
            hosted = job.state == "submitted"
            yield Need(
                f"the training of {job.window} is silent for {_span(silent)}",
                f"state {job.state} on {job.backend or 'an unknown backend'}, chain {job.chain}",
                "hosted-job-lost" if hosted else "training-busy",
                command=f"babylon train {job.window}{_on_branch(job.chain)}",
            )


def _on_branch(chain: str) -> str:
    """The options of `babylon train` that go on with a branch; none for the chain itself."""
    _, is_branch, name = chain.partition(BRANCH)
    return f" --branch --name {name}" if is_branch else ""


def _overdue(report: Report) -> Iterator[Need]:
    overdue = report.overdue
    if overdue:
        yield Need(
            _counted(len(overdue), "window", "is overdue" if len(overdue) == 1 else "are overdue"),
            _listed(overdue),
            "windows-stay-open",
            command=f"babylon train {overdue[0].id}",
        )


def _skipped(report: Report) -> Iterator[Need]:
    skipped = [window for window in report.windows if window.state == "skipped" and not window.was_passed]
    if skipped:
        yield Need(
            _counted(len(skipped), "window", "was skipped" if len(skipped) == 1 else "were skipped"),
            _listed(skipped),
            "trained-on-nothing",
            command=f"babylon status {skipped[-1].id}",
        )


def _quarantine(report: Report) -> Iterator[Need]:
    high = [window for window in report.windows if window.quarantined_share > MOST_IN_QUARANTINE]
    if high:
        shares = [f"{window.id}: {window.quarantined_share:.0%} of its rows" for window in high[-NAMED:]]
        yield Need(
            f"{_counted(len(high), 'window', 'has' if len(high) == 1 else 'have')} many rows in quarantine",
            "; ".join(shares) + _more(len(high)),
            "quarantine-is-high",
            advice="read the reasons below, mend what writes the rows, then materialize the window again",
        )


def _odd_ids(report: Report) -> Iterator[Need]:
    odd_ids = report.odd_ids or {}
    if odd_ids:
        named = ", ".join(f"{identity!r} ({rows:,})" for identity, rows in list(odd_ids.items())[:NAMED])
        rows = sum(odd_ids.values())
        yield Need(
            f"{_counted(rows, 'row', 'has' if rows == 1 else 'have')} a windowId that is no window",
            f"windowId {named}{_more(len(odd_ids))}",
            "windows-stay-open",
            advice="they are read with the hour in which they ended; have the game write it as YYYY-MM-DDTHH:00",
        )


def _span(silent: timedelta) -> str:
    minutes = silent.total_seconds() / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _counted(number: int, noun: str, verb: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'} {verb}"


def _listed(windows: Sequence[WindowSummary]) -> str:
    text = [f"{window.id}: {window.reason}" if window.reason else window.id for window in windows[-NAMED:]]
    return "; ".join(text) + _more(len(windows))


def _more(number: int) -> str:
    return f"; and {number - NAMED:,} more" if number > NAMED else ""
