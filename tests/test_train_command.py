"""What `babylon train` says of a window when its run has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from babylon_assets.cli import terminal
from babylon_assets.cli.train import report
from babylon_assets.config.settings import Settings
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.trajectories import replace_window
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.orchestration.runtime import LineRun
from tests.ledger.values import CHAIN, WINDOW, checkpoint, dataset, quarantined, record, root, sample


class ALine:
    """A line whose run does one thing."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def materialize(self, window: str) -> LineRun:
        self._run()
        return LineRun("run-1", 0.1)


def test_a_window_is_said_to_be_trained_now_or_before_and_what_was_not_read_is_named(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal.output, "_width", 200)
    frozen = dataset(sample(0))

    def train() -> None:
        with database.connect() as conn:
            refused = [quarantined(0), quarantined(1), quarantined(2, reason="empty")]
            replace_window(conn, WINDOW, [record(0)], refused)
            save_dataset(conn, frozen)
            insert_checkpoint(conn, root())
            made = checkpoint(1, WINDOW, frozen.id)
            insert_checkpoint(conn, made)
            names: Any = {"checkpoint_id": made.id, "parent_id": made.parent_id}
            upsert_window(conn, WINDOW, status="trained", dataset_id=frozen.id, **names)

    report(database, ALine(train), Settings(), WINDOW)  # type: ignore[arg-type]
    first, *facts = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == [WINDOW, "trained"]
    assert "  not read  2 trajectories: not JSON; 1 trajectory: empty" in facts
    assert any(fact.startswith("  trained ") for fact in facts)
    report(database, ALine(lambda: None), Settings(), WINDOW)  # type: ignore[arg-type]
    again, *facts = capsys.readouterr().out.splitlines()
    assert again.startswith(f"{WINDOW}  was trained before, as {CHAIN}@1; nothing was trained now")
    assert not any(fact.startswith(("  trained", "  gate")) for fact in facts), facts
