"""Every sort of wait on this side of Dagster's pool: it says for whom, it sleeps, and it ends when a signal says so."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from babylon_assets.ledger import embedded_postgres, waiting
from babylon_assets.ledger.checkpoints import lock_line
from babylon_assets.ledger.database import (
    _MIGRATION_LOCK,
    Connection,
    Database,
    game_lock,
    judge_lock,
    migrate,
    window_lock,
)
from babylon_assets.ledger.forgotten_agents import wait_for_writers
from babylon_assets.ledger.late_samples import late_lock
from babylon_assets.ledger.specification import FORGOTTEN_AGENTS

#: Seconds until the signal comes; a wait that goes round without a pause uses as much of a core.
UNTIL = 0.4
#: What holds something, and what waits for it, in a database or below a folder.
Sort = Callable[[Database, Path], AbstractContextManager[object]]
MIGRATING = "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)"


def transaction(lock: Callable[[Connection], object]) -> Sort:
    @contextmanager
    def hold(database: Database, _: Path) -> Iterator[None]:
        with database.connect() as conn:
            lock(conn)
            yield

    return hold


def migrating(database: Database, _: Path) -> AbstractContextManager[object]:
    return contextlib.nullcontext(migrate(database))


WAITS: dict[str, tuple[Sort, Sort, str]] = {
    name: (transaction(lock), transaction(lock), f"the right {what}, which session ")
    for name, lock, what in (
        ("a window", lambda conn: window_lock(conn, "w"), "to write the window w"),
        ("late samples", lambda conn: late_lock(conn, "c"), "to share out the late samples of c"),
        ("a chain's line", lambda conn: lock_line(conn, "c"), "to change the line of c"),
        ("the simulated game", game_lock, "to play the simulated game"),
    )
} | {
    "a judge": (
        lambda database, _: judge_lock(database, "w"),
        lambda database, _: judge_lock(database, "w"),
        "the right to have the window w judged, which session ",
    ),
    "a migration": (
        transaction(lambda conn: conn.execute(MIGRATING, _MIGRATION_LOCK)),
        migrating,
        "the right to migrate our tables, which session ",
    ),
    "writers of a forgotten agent": (
        transaction(lambda conn: conn.execute(FORGOTTEN_AGENTS.select(""))),
        transaction(wait_for_writers),
        "those who write trajectories and calls",
    ),
    "who starts the server": (
        lambda _, folder: embedded_postgres._file_lock(folder),
        lambda _, folder: embedded_postgres._file_lock(folder),
        "another process that starts or stops the PostgreSQL in ",
    ),
    "a server that recovers": (
        lambda *_: contextlib.nullcontext(),
        lambda _, folder: contextlib.nullcontext(embedded_postgres._wait_until_ready(folder)),
        "the embedded PostgreSQL in ",
    ),
}


@contextmanager
def told_to_end() -> Iterator[None]:
    """A signal comes, which ends this thread's work as Ctrl-C and SIGTERM do."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, UNTIL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("sort", WAITS)
def test_a_wait_says_for_whom_sleeps_and_ends_when_it_is_told(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    hold, wait, what = WAITS[sort]
    with hold(database, tmp_path / "data"):
        began, used = time.monotonic(), time.thread_time()
        with pytest.raises(KeyboardInterrupt), told_to_end(), wait(database, tmp_path / "data"):
            pass
        assert pauses and min(pauses) > 0.01
        assert time.thread_time() - used < UNTIL / 2
        assert UNTIL <= time.monotonic() - began < 20
    assert [record.message for record in caplog.records if what in record.message]
