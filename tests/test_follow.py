"""`babylon train --follow` outlives a window that fails and a database that is away."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from babylon_assets.cli import train as train_command
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable, PermanentError

FIRST, SECOND = "2025-11-05T13:00", "2025-11-05T14:00"


@pytest.mark.parametrize("failure", [PermanentError("it is broken; mend it"), OSError("it is broken; mend it")])
def test_follow_notes_a_window_that_fails_and_trains_the_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    cancelled = psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
    rounds: Iterator[Exception | list[str]] = iter(
        [DatabaseUnavailable("the server restarts"), cancelled, [FIRST, SECOND], [FIRST, SECOND]]
    )

    def waiting_windows(*_: object) -> list[str]:
        found = next(rounds)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(train_command, "waiting_windows", waiting_windows)
    reported: list[str] = []

    def report(_database: object, _line: object, _settings: object, window: str) -> str:
        reported.append(window)
        if window == FIRST:
            raise failure
        return "run"

    monkeypatch.setattr(train_command, "report", report)
    monkeypatch.setattr(train_command, "POLL_SECONDS", 0)
    train_command.follow_windows(None, None, Settings(), rounds=4)  # type: ignore[arg-type]
    assert reported == [FIRST, SECOND, SECOND]
    told = " ".join(capsys.readouterr().err.split())
    assert "no windows can be read now: the server restarts" in told
    assert "no windows can be read now: PostgreSQL: canceling statement" in told
    assert f"{FIRST} failed, the next one is trained: it is broken; mend it" in told
