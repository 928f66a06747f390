"""`babylon backfill`: many closed windows at once, the data in one recorded run, training in order in another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

from babylon_assets.cli.terminal import bold, errors, output, print_json, progress
from babylon_assets.cli.train import FINISHED, list_unrecorded, prepared_line, reaching, refuse_running
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.errors import BabylonError, PermanentError
from babylon_assets.domain.time_left import describe_time_left
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.ledger.windows import WindowRow, list_windows

if TYPE_CHECKING:
    from babylon_assets.config.settings import Settings
    from babylon_assets.ledger.database import Database
    from babylon_assets.orchestration.runtime import Line

#: A range of windows is written into the run's record; a year is enough for one.
MOST_WINDOWS = 8784
#: Without a terminal, progress is a line at most this often.
SAY_EVERY_SECONDS = 15.0


@dataclass
class Backfill:
    """What a backfill did.

    Attributes:
        read, trained: recorded windows that the data run and the training run went over; the others were done.
        states: windows of the range by their state afterwards; those that were never recorded are empty.
        failed: the reason by window.
        runs: ids of the Dagster runs that ended well.
        error: what stopped it, if something did.
    """

    first: str
    last: str
    windows: int
    read: int = 0
    trained: int = 0
    states: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: BabylonError | None = None


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="The first window, such as 2026-11-01T00:00.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="The last window; it is included.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done for scripts.")] = False,
) -> None:
    """Read, score and train a range of windows.

    It reads and freezes what is new or has changed, then trains in the order of the windows. Start it again after an
    interruption: what is done is not repeated. A window that fails costs no other its data; training stops there.

    Example: [bold]babylon backfill 2026-11-01T00:00 2026-11-30T23:00[/]
    """
    settings = reaching(load_settings(), first)
    windows = windows_between(first, last, settings.windows)
    started = time.monotonic()
    with _progress() as heard, prepared_line(settings, "backfill", heard) as (database, line):
        done = run_backfill(settings, database, line, windows)
    done.seconds = time.monotonic() - started
    if as_json:
        facts = {name: value for name, value in vars(done).items() if name != "error"}
        print_json({**facts, "error": None if done.error is None else str(done.error)})
    else:
        _tell(done)
    if done.error is not None:
        raise done.error


def windows_between(first: str, last: str, grid: WindowGrid) -> list[str]:
    """All windows of a range, both ends included.

    Raises:
        PermanentError: an end is no window or not over yet, the range is empty or longer than a year.
    """
    count = grid.count(first, last)
    if count < 1:
        raise PermanentError(f"{first} is after {last}; give the oldest window first: babylon backfill {last} {first}")
    refuse_running(last, grid)
    if count > MOST_WINDOWS:
        raise PermanentError(f"{first} to {last} are {count:,} windows; give at most {MOST_WINDOWS:,} at once")
    return grid.between(first, last)


def run_backfill(settings: Settings, database: Database, line: Line, windows: list[str]) -> Backfill:
    """Bring a range of windows to its end, as far as it goes; what stopped it is in the result, not raised."""
    from babylon_assets.orchestration.jobs import DATA, TRAINING

    done = Backfill(windows[0], windows[-1], len(windows))
    empty = set(list_unrecorded(settings, database, windows))
    done.states |= {"empty": len(empty)} if empty else {}
    windows = [window for window in windows if window not in empty]
    todo = _span(windows, _unread(settings, database, windows))
    done.read = len(todo)
    _run(done, line, DATA, todo)
    if settings.training.enabled:
        ended = settled_windows(database, windows)
        todo = _span(windows, _unseen(ended, windows, line.materialized(TRAINING[0])))
        done.trained = len(todo)
        _run(done, line, TRAINING, todo)
        ended = settled_windows(database, windows)  # a run that stopped early told of none
        waiting = [window for window in _unseen(ended, windows, line.materialized(TRAINING[-1])) if window in ended]
        _run(done, line, TRAINING[1:], _span(windows, waiting))
    rows = _rows(database, windows)
    for row in rows.values():
        done.states[row.status] = done.states.get(row.status, 0) + 1
        if row.status == "failed":
            done.failed[row.window_id] = row.reason or ""
    return done


def _run(done: Backfill, line: Line, assets: Sequence[str], todo: Sequence[str]) -> None:
    """Run what is to be done; the first error is the one that is told, for the later ones follow from it."""
    if not todo:
        return
    try:
        done.runs.append(line.run_range(assets, todo[0], todo[-1]))
    except BabylonError as error:
        done.error = done.error or error


def _rows(database: Database, windows: Sequence[str]) -> dict[str, WindowRow]:
    wanted = set(windows)
    with database.connect() as conn:
        return {row.window_id: row for row in list_windows(conn) if row.window_id in wanted}


def _unread(settings: Settings, database: Database, windows: Sequence[str]) -> list[str]:
    """Windows without a dataset, and those whose rows or outcomes have changed since."""
    from babylon_assets.orchestration.assets.raw_trajectories import is_current
    from babylon_assets.orchestration.resources import Installation

    installation = Installation(settings, database)
    with installation.reusing_connections():
        return [window for window in windows if not is_current(installation, window)]


def settled_windows(database: Database, windows: Sequence[str]) -> set[str]:
    """Windows that ask for nothing more of training."""
    return {window for window, row in _rows(database, windows).items() if row.status in FINISHED}


def _unseen(ended: set[str], windows: Sequence[str], materialized: set[str]) -> list[str]:
    """Windows that training has not settled, and those whose partition nobody sees yet."""
    return [window for window in windows if window not in ended or window not in materialized]


def _span(windows: Sequence[str], todo: Sequence[str]) -> list[str]:
    """From the first to the last window that is to be done: a run takes a range without gaps."""
    return [window for window in windows if todo and todo[0] <= window <= todo[-1]]


def _tell(done: Backfill) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(done.states.items())) or "nothing to do"
    output.print(bold(f"{done.first} to {done.last}"), f" {done.windows} windows: {states}")
    others = "; the environment has no row of the empty ones" if done.states.get("empty") else ""
    output.print(f"  read {done.read}, trained {done.trained} windows in {done.seconds:.0f} s{others}")
    for window, reason in list(done.failed.items())[:10]:
        output.print(f"  {window}  failed: {reason}", highlight=False)


class _TimeLeft(ProgressColumn):
    """How long the rest takes, looked at whenever the bar is drawn and not only when a window ends."""

    def render(self, task: Task) -> Text:
        return Text(_time_left(task.fields, time.monotonic()))


def _time_left(seen: Mapping[str, Any], now: float) -> str:
    failed = f"{seen['failed']} failed" if seen["failed"] else ""
    left = describe_time_left(seen["done"], seen["total_windows"], seen["last"] - seen["begun"], now - seen["last"])
    return ", ".join(filter(None, [failed, left]))


@contextmanager
def _progress() -> Iterator[Callable[[int, int, int], None]]:
    """A callback (windows done, of how many, failed) that shows how far a run is and how long it will go on."""
    with progress("{task.completed:.0f} of {task.total:.0f}", _TimeLeft()) as bar:
        seen: dict[str, Any] = {"done": 0, "total_windows": 0, "failed": 0, "begun": 0.0, "last": 0.0}
        task = bar.add_task("windows", total=1, **seen)
        reported = 0.0

        def heard(done: int, total: int, failed: int) -> None:
            nonlocal reported
            now = time.monotonic()
            if done == 1 or total != seen["total_windows"]:
                seen["begun"], reported = now, now
            seen.update(done=done, total_windows=total, failed=failed, last=now)
            bar.update(task, completed=done, total=total, **seen)
            if not errors.is_terminal and now - reported > SAY_EVERY_SECONDS:
                reported = now
                errors.print(f"{done} of {total} windows, {_time_left(seen, now)}", highlight=False)

        yield heard
