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
from babylon_assets.orchestration.assets.raw_trajectories import fingerprint_now, is_unchanged
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import scores_are_current

#: Windows that one run takes, after an outage. More would keep the newest waiting for a day.
MOST_AT_ONCE = 24
#: Thin windows that one look notes; the daemon writes an event for each, some milliseconds long.
MOST_THIN = 100
#: Failed windows that one look compares with what failed, about 10 ms each.
MOST_FAILED = 20
#: Windows whose rows and scores one look compares, up to some seconds each.
MOST_COMPARED = 8
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


@dataclass(frozen=True, slots=True)
class ChangedWindows:
    """What to do about settled windows whose source has changed.

    Attributes:
        windows: for one run, oldest first, one right after another; each would get other rows or scores.
        fingerprint: of the first of them, as the environment has it now.
        unchanged: windows whose source changed and whose rows and scores did not; this is noted.
        cursor: where the next look goes on; None: at the newest again.
    """

    windows: list[str]
    fingerprint: str
    unchanged: list[str]
    cursor: str | None


def changed_windows(
    installation: Installation, cursor: str | None, most: int, was_tried: Callable[[str, str], bool]
) -> ChangedWindows:
    """Which settled windows are to be read again: the oldest that has changed, with those that follow it.

    A fingerprint covers more than what a window is made from, such as the trades of the hour after it. A window whose
    fingerprint is another is therefore compared: its rows with those that are kept, and its scores with what scoring
    gives now. Looks at `most` windows, the newest first, and stays with them until none of them is left to be run.

    Args:
        was_tried: by window and fingerprint, whether a run was launched for it before, and failed: it is left alone.
    """
    with installation.alone() as own:
        with own.connect() as conn, own.source_of(conn) as source:
            installation.environment.check(source)
            known = ledger.read_before(conn, cursor, most)
        differing = [(window, now) for window, then in known if (now := fingerprint_now(own, window)) != then]
        waiting = [(window, now) for window, now in sorted(differing) if not was_tried(window, now)]
        changed, unchanged = _compare(own, waiting)
    on = known[-1][0] if len(known) == most else None
    more = len(changed) + len(unchanged) < len(waiting)
    first = dict(waiting)[changed[0]] if changed else ""
    return ChangedWindows(changed, first, unchanged, cursor if changed or more else on)


def _compare(installation: Installation, waiting: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The first windows that are really other ones, without a gap between them, and those that are not."""
    changed, unchanged = list[str](), list[str]()
    for window, fingerprint in waiting[:MOST_COMPARED]:
        if changed and window != installation.settings.windows.next(changed[-1]):
            break
        if is_unchanged(installation, window) and scores_are_current(installation, window):
            unchanged.append(window)
            with installation.connect() as conn:
                ledger.upsert_window(conn, window, fingerprint=fingerprint)
        else:
            changed.append(window)
    return changed, unchanged
