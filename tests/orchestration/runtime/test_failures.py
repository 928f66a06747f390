"""What is tried again says so at once, to the run and to whoever waits for a command."""

from __future__ import annotations

import pytest

from babylon_assets.domain.errors import TrainingBusy
from babylon_assets.orchestration.runtime import failures


def test_who_holds_what_is_waited_for_is_said_before_the_first_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures, "FIRST_WAIT_SECONDS", 0.0)
    outcomes = iter([TrainingBusy("another run is training the chain 'c' (session 7)"), None])
    heard: list[str] = []

    def work() -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return "done"

    logged: list[str] = []
    monkeypatch.setattr(failures._log, "warning", lambda _form, text: logged.append(text))
    assert failures.attempt(work, heard.append) == "done"
    assert logged == heard and "session 7" in heard[0]
