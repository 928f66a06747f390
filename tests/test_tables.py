"""Tables of commands at every width: what has no room is left out and named, and nothing is cut."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from babylon_assets.cli import terminal
from babylon_assets.cli.chain import tree_table
from babylon_assets.cli.list_windows import window_table
from babylon_assets.ledger.late_samples import CarriedSamples
from babylon_assets.ledger.windows import Status, WindowRow
from tests.ledger.values import checkpoint, root

NAMES = {f"c{step}": f"babylon-agent@{step}" for step in range(3)} | {"c3": "babylon-agent@3 (rolled back)"}
REASON = "nothing in the window can be trained on: " + ", ".join(f"reason {n} ({n})" for n in range(40))


def row(hour: int, status: Status, checkpoint: str | None, reason: str | None = None) -> WindowRow:
    return WindowRow(
        window_id=f"2026-11-29T{hour:02}:00",
        status=status,
        fingerprint=None,
        trajectories=12_345,
        agents=32,
        samples=123_456,
        trainable_tokens=12_345_678,
        reward_mean=-0.12345,
        reward_std=0.1,
        dataset_id="d",
        checkpoint_id=checkpoint,
        parent_id="c1",
        reference={"oracle": 0.98765},
        reason=reason,
        changed_at=datetime.now(UTC),
    )


ROWS = [row(7, "trained", "c2"), row(8, "trained", "c3"), row(9, "skipped", None, REASON)]
CARRIED = [CarriedSamples(f"2026-11-28T{hour:02}:00", ROWS[0].window_id, 50) for hour in range(24)]


def test_a_rejected_checkpoint_stands_where_it_was_made() -> None:
    line = [root(), *(checkpoint(step, f"2026-11-29T0{step}:00", f"d{step}") for step in (1, 2, 3))]
    left = replace(line[2], rejected="refused: worse")
    again = replace(line[3], parent_id=line[1].id)
    states = dict.fromkeys((one.id for one in line), "served before")
    table = tree_table([line[0], line[1], left, again], states, {})
    assert [cell.strip() for cell in table.columns[0].cells] == [f"babylon-agent@{step}" for step in range(4)]  # type: ignore[union-attr]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_windows_are_readable_at_every_width_whatever_is_carried(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", width)
    paper = io.StringIO()
    Console(file=paper, width=width).print(window_table(ROWS, NAMES, CARRIED))
    text = paper.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    shown = lines[0].split()
    for name, value in {"samples": "123,456", "reward": "-0.1235", "tokens": "12,345,678", "oracle": "0.9877"}.items():
        assert (name in shown) == (text.count(value) == len(ROWS)), name
        assert name in shown or name in text.partition("not shown at this width: ")[2]
    assert ("oracle" in shown) == (width > 80)
    for window in ROWS:
        assert f"{window.window_id}  {window.status}" in text
    assert all(word in text.split() for word in ("1200", "24", "@1", "babylon-agent@2;"))
    assert len(lines) < 30
