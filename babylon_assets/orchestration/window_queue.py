"""Which windows the line is to be run for next, and which have to be looked at again: decisions, from the database.

A window waits when it is over, past its grace, and neither trained and judged, thin nor skipped. Runs are launched
elsewhere; all that is written here is the state of a window with too few agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.windows import Window, WindowGrid
from babylon_assets.environments.base import SourceWindow
from babylon_assets.ledger import verdicts
from babylon_assets.ledger import windows as ledger
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import Status
from babylon_assets.orchestration.assets.raw_trajectories import fingerprint_now
from babylon_assets.orchestration.resources import Installation

#: Windows that one run takes, after an outage. More would keep the newest waiting for a day.
MOST_AT_ONCE = 24
#: Thin windows that one look notes; the daemon writes an event for each, some milliseconds long.
MOST_THIN = 100
#: Failed windows that one look compares with what failed, about 10 ms each.
MOST_FAILED = 20
#: A window whose runs failed so often on the same rows is left to a person.
MOST_ATTEMPTS = 3
#: After every window.
WINDOWS_END = "9999"
FIRST_PAUSE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Attempts:
    """Runs that were launched for a window on the same rows, and when the last one ended."""

    count: int
    last_end: datetime | None


@dataclass(frozen=True, slots=True)
class NextWindows:
    """What to do now.

    Attributes:
        windows: for one run, oldest first, one right after another; empty when there is nothing to run.
        fingerprint: of the first of them, as the game has it now.
        attempt: which one this would be, from 1 on.
        thin: windows with too few agents, by the reason; their state is noted.
        cursor: no window before this one has to be looked at again.
        said: in words, why nothing is run.
    """

    windows: list[str]
    fingerprint: str
    attempt: int
    thin: dict[str, str]
    cursor: str | None
    notes: str


def next_windows(
    installation: Installation,
    now: datetime,
    cursor: str | None,
    attempts: Callable[[str, str], Attempts],
) -> NextWindows:
    """The next range of waiting windows, oldest first.

    Args:
        cursor: of the last look.
        attempts: by window and fingerprint, what was launched for it before.
    """
    settings = installation.settings
    with installation.connect() as conn, installation.source_of(conn) as source:
        unjudged = _unjudged(conn, settings.model_name)
        since = max(min(cursor or settings.window_start, unjudged or WINDOWS_END), settings.window_start)
        try:
            installation.environment.check(source)
        except SourceError as error:
            return NextWindows(windows=[], fingerprint="", attempt=0, thin={}, cursor=cursor, notes=str(error))
        states = ledger.states_since(conn, since)
        closed = [
            row
            for row in installation.environment.list_windows(source, since)
            if _is_over(settings.windows.parse(row.window), now, settings.automation.window_grace_minutes)
        ]
    settled = _settled_states(settings.training.enabled)
    waiting = [row for row in closed if states.get(row.window) not in settled or row.window == unjudged]
    few = [row for row in waiting if row.agents < settings.datasets.min_agents_per_window and row.window not in states]
    thin = {
        row.window: f"{row.agents} agents, MIN_AGENTS_PER_WINDOW is {settings.datasets.min_agents_per_window}"
        for row in few[:MOST_THIN]
    }
    poor = {row.window for row in few}
    waiting = [row for row in waiting if row.window not in poor]
    left = [row.window for row in (*waiting[:1], *few[MOST_THIN:][:1])]
    cursor = min(left, default=closed[-1].window if closed else cursor)
    with installation.alone() as own:
        return _first_ready(own, now, waiting, states, thin, cursor, attempts)


def _unjudged(conn: Connection, chain: str) -> str | None:
    """The window whose run was killed after its checkpoint was in the ledger and before the gate had spoken."""
    left = verdicts.without_verdict(conn, chain)
    return left.window_id if left is not None else None


def _first_ready(
    installation: Installation,
    now: datetime,
    waiting: Sequence[SourceWindow],
    states: Mapping[str, Status],
    thin: dict[str, str],
    cursor: str | None,
    attempts: Callable[[str, str], Attempts],
) -> NextWindows:
    """The oldest window that may be tried now, with those that follow it without a gap."""
    given_up, pausing = [], []
    failed = [row.window for row in waiting if states.get(row.window) == "failed"]
    left_alone = set(failed) - set(_in_turn(failed, now))
    for place, row in enumerate(waiting):
        if row.window in left_alone:
            given_up.append(row.window)
            continue
        fingerprint = fingerprint_now(installation, row.window)
        before = attempts(row.window, fingerprint)
        if before.count >= (1 if states.get(row.window) == "failed" else MOST_ATTEMPTS):
            given_up.append(row.window)
        elif before.last_end is not None and now < before.last_end + FIRST_PAUSE * 2 ** (before.count - 1):
            pausing.append(row.window)
            break
        else:
            together = _consecutive(
                [later.window for later in waiting[place : place + MOST_AT_ONCE]], installation.settings.windows
            )
            return NextWindows(
                windows=together, fingerprint=fingerprint, attempt=before.count + 1, thin=thin, cursor=cursor, notes=""
            )
    notes = [f"{given_up[0]} and {len(given_up) - 1} more stay failed; see `babylon windows`"] if given_up else []
    notes += [f"{window} failed and is tried again in a while" for window in pausing]
    return NextWindows(
        windows=[],
        fingerprint="",
        attempt=0,
        thin=thin,
        cursor=cursor,
        notes="; ".join(notes) or _nothing(installation, now),
    )


def _in_turn(failed: Sequence[str], now: datetime) -> Sequence[str]:
    """The failed windows whose rows this look compares; all have their turn, some every half minute."""
    if len(failed) <= MOST_FAILED:
        return failed
    first = int(now.timestamp()) // 30 * MOST_FAILED % len(failed)
    return [*failed[first:], *failed][:MOST_FAILED]


def _nothing(installation: Installation, now: datetime) -> str:
    grace = installation.settings.automation.window_grace_minutes
    return f"no window waits: those that were over {grace} minutes before {now:%H:%M} UTC are done"


def _consecutive(windows: Sequence[str], grid: WindowGrid) -> list[str]:
    """The windows up to the first gap."""
    together = [windows[0]]
    for window in windows[1:]:
        if window != grid.next(together[-1]):
            break
        together.append(window)
    return together


def _is_over(window: Window, now: datetime, grace_minutes: int) -> bool:
    return window.end + timedelta(minutes=grace_minutes) <= now


def _settled_states(train: bool) -> frozenset[Status]:
    done: tuple[Status, ...] = ("trained", "thin", "skipped")
    return frozenset(done if train else (*done, "ready"))


def note_thin(installation: Installation, thin: Mapping[str, str]) -> None:
    """Note the windows with too few agents, so that nobody waits for them; late rows wake them up again."""
    with installation.connect() as conn:
        ledger.note_thin(conn, thin)


def changed_windows(
    installation: Installation, cursor: str | None, most: int
) -> tuple[list[tuple[str, str]], str | None]:
    """Settled windows whose rows or outcomes have changed since they were read, with their fingerprint now.

    Looks at `most` windows, the newest first, and goes on there with the cursor that it gives; None begins again.
    """
    with installation.alone() as own:
        with own.connect() as conn, own.source_of(conn) as source:
            installation.environment.check(source)
            known = ledger.read_before(conn, cursor, most)
        changed = [(window, now) for window, then in known if (now := fingerprint_now(own, window)) != then]
    return changed, known[-1][0] if len(known) == most else None
