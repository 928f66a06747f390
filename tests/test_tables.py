"""Tables of commands at every width: what has no room is left out and named, and nothing is cut."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console
from rich.table import Table

from babylon_assets.cli import terminal
from babylon_assets.cli.chain import tree_table
from babylon_assets.cli.compare import _measured_table as measured_table
from babylon_assets.cli.list_scores import _table as steps_table
from babylon_assets.cli.list_scores import _tied as find_tied
from babylon_assets.cli.list_windows import print_newest, window_table
from babylon_assets.cli.status import _with_names as name_checkpoints
from babylon_assets.domain.baselines import WORSE_HALF
from babylon_assets.domain.evaluations import Interval
from babylon_assets.domain.policy_comparison import ComparedPolicies, MeasuredTwice
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
CARRIED = [CarriedSamples(f"2026-11-28T{hour:02}:00", ROWS[0].window_id, 50, 41) for hour in range(24)]


def test_a_rejected_checkpoint_stands_where_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", 80)
    line = [root(), *(checkpoint(step, f"2026-11-29T0{step}:00", f"d{step}") for step in (1, 2, 3))]
    left = replace(line[2], rejected="refused: worse")
    again = replace(line[3], parent_id=line[1].id)
    states = dict.fromkeys((one.id for one in line), "served before")
    table = tree_table([line[0], line[1], left, again], states, {line[1].id: 0.5})
    assert [cell.strip() for cell in table.columns[0].cells] == [f"babylon-agent@{step}" for step in range(4)]  # type: ignore[union-attr]
    assert [str(column.header) for column in table.columns] == ["policy", "id", "window", "reward", "state"]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_windows_are_readable_at_every_width_whatever_is_carried(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", width)
    monkeypatch.setattr(terminal.output, "_force_terminal", True)
    paper = io.StringIO()
    Console(file=paper, width=width).print(window_table(ROWS, NAMES, CARRIED, {ROWS[0].window_id: 1}))
    text = paper.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    shown = lines[0].split()
    for name, value in {"samples": "123,456", "reward": "-0.1235", "tokens": "12,345,678", "oracle": "0.9877"}.items():
        assert (name in shown) == (text.count(value) == len(ROWS)), name
        assert name in shown or name in text.partition("not shown at this width: ")[2]
    assert ("oracle" in shown) == (width > 120)
    assert "1 row not read" in " ".join(text.split()) and "rows not read" not in text
    for window in ROWS:
        assert f"{window.window_id}  {window.status}" in text
    assert all(word in text.split() for word in ("1,200", "984", "babylon-agent@2"))
    assert len(lines) < 30


def test_no_command_that_somebody_types_is_cut_and_in_a_pipe_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"`babylon train {ROWS[0].window_id} --branch`"
    reason = f"{'the chain has moved on ' * 3}and {command} trains it beside the chain, on its dataset as it is now"
    rows = [row(9, "skipped", None, reason)]
    for on_a_terminal in (True, False):
        monkeypatch.setattr(terminal.output, "_force_terminal", on_a_terminal)
        cell = next(iter(window_table(rows, NAMES).columns[-1].cells))
        assert command in str(cell) and (str(cell) == reason) != on_a_terminal


def test_what_no_checkpoint_was_measured_on_has_no_column() -> None:
    line = [root(), checkpoint(1, "2026-11-29T01:00", "d1")]
    states = dict.fromkeys((one.id for one in line), "served before")
    for rewards in ({}, {line[1].id: 0.5}):
        headers = [str(column.header) for column in tree_table(line, states, rewards).columns]
        assert ("reward" in headers) == bool(rewards)


def test_a_note_of_a_window_stands_on_one_line_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", 80)
    known = [replace(ROWS[0], understood=1.0, samples=512, trainable_tokens=7631, trajectories=32)]
    lines = printed(window_table(known, NAMES, [CarriedSamples(known[0].window_id, None, 9, 0)]), 80)
    assert "babylon-agent@2  9 late wait" in lines[1]
    assert not printed(window_table(known, NAMES), 80)[0].endswith("note")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_action_of_a_step_is_cut_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", width)
    names = ("agent", "call", "kind", "state", "entry", "exit", "worth", "baseline", "compared_with", "skip_reason")
    step = {
        **dict.fromkeys(names),
        "reward": 0.4812,
        "advantage": 0.1,
        "trains_as": "policy_gradient",
        "state": "final",
    }
    trajectory, action = "sim-2026-11-29T23:00-009000000000002005", "OPEN_PERP_POSITION BOLT 500"
    place = {"trajectory": trajectory, "agent": "009000000000002005", "step": 3}
    lines = printed(steps_table([{**step, **place, "action": action}]), width)
    begins = lines[0].index("action")
    assert "".join(line[begins:].replace(" ", "") for line in lines[1:-1]).startswith(action.replace(" ", ""))
    assert lines[0].replace("trajectory", "").split()[:2] == ["agent", "step"]
    assert {"reward", "state", "trained"} <= set(lines[0].split())
    assert re.search(r"(^| )009[0…]+2005 ", lines[1])


def test_what_is_said_of_no_step_has_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", 400)
    names = ("agent", "call", "kind", "state", "entry", "exit", "worth", "baseline", "compared_with", "skip_reason")
    reply = {**dict.fromkeys(names), "reward": 0.5, "advantage": 0.1, "trains_as": "sft", "trajectory": "t", "step": 0}
    trade = {**reply, "kind": "trade", "entry": 104.0, "exit": 90.0}
    of_market = {"kind", "entry", "exit"}
    for rows, shown in (([reply], set()), ([reply, trade], of_market)):
        headers = {str(column.header) for column in steps_table([{**row, "action": "replace"} for row in rows]).columns}
        assert headers & of_market == shown and {"trajectory", "worth", "action"} <= headers


def test_the_table_of_the_readme_has_the_columns_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", 200)
    known = replace(ROWS[0], understood=1.0)
    printed_columns = [str(column.header) for column in window_table([known], NAMES).columns]
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    [shown] = [line for line in readme.splitlines() if line.startswith("window  ")]
    assert re.split(r"  +", shown) == printed_columns
    plain = window_table([replace(known, reference=None)], NAMES)
    assert [str(column.header) for column in plain.columns] == [name for name in printed_columns if name != "oracle"]


def test_two_policies_are_side_by_side_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.output, "_width", 80)
    value, none = Interval(0.4673, 0.403, 0.4383), Interval(0.0, 0.0, 0.0)
    row = MeasuredTwice("recorded_prompts", ROWS[0].window_id, value, value, none, (0.987, 1.0))
    compared = ComparedPolicies(
        first="babylon-agent@3", second="babylon-agent@25", measured=[row], prompts=0, kinds=[], differing=[]
    )
    lines = printed(measured_table(compared), 80)
    assert lines[0].split() == ["evaluation", "babylon-agent@3", "babylon-agent@25", "difference"]
    assert lines[1].split()[-3:] == ["0.4673", "0.4673", "0.000"]
    assert "[0.4030, 0.4383]" in lines[2] and "[0.000, 0.000]" in lines[2]  # even digits
    assert "not shown at this width: valid" in "".join(lines)


def test_facts_go_on_below_and_no_word_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal.output, "_width", 80)
    settings = {f"a_setting_{number}": 1000.5 * number for number in range(40)}
    terminal.print_fact("settings", settings, width=12)
    terminal.print_fact("id", f"babylon-agent@3  {'f' * 64}", indent=2, width=14)
    terminal.print_fact("tokens", 5051, width=12)
    terminal.print_fact("seed", 5051, width=12)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).startswith(
        "settings a_setting_0: 0.000, a_setting_1: 1,000, a_setting_2: 2,001"
    )
    assert (
        lines[-4:]
        == ["  id", "      babylon-agent@3", f"      {'f' * 64}", "tokens        5,051", "seed          5051"][-4:]
    )


def test_the_end_of_a_checkpoint_is_said_once() -> None:
    assert name_checkpoints({"lineage": {"rejected": "refused: it is worse"}}, {}) == {
        "lineage": {"state": "rejected: it is worse"}
    }


def printed(table: Table, width: int) -> list[str]:
    """The lines of a table as a terminal of this width shows them."""
    paper = io.StringIO()
    Console(file=paper, width=width).print(table)
    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_an_answer_that_ties_with_an_imitated_one_says_why_it_is_not() -> None:
    answer = Answer("g", 0.3, "sft", None)
    answers: Any = {
        ("t1", 0): answer,
        ("t2", 0): answer._replace(trains_as="skip", skip_reason=WORSE_HALF),
        ("t3", 0): answer._replace(reward=0.2, trains_as="skip", skip_reason=WORSE_HALF),
        ("t4", 0): answer._replace(group="h", trains_as="skip", skip_reason=WORSE_HALF),
    }
    assert find_tied(answers) == {("t2", 0)}


class Answer(NamedTuple):
    group: str
    reward: float
    trains_as: str
    skip_reason: str | None


def test_of_many_windows_the_newest_are_shown_and_how_to_see_all(capsys: pytest.CaptureFixture[str]) -> None:
    many = [
        replace(ROWS[0], window_id=f"2026-{month:02}-{day:02}T07:00") for month in range(1, 9) for day in range(1, 29)
    ]
    for everything, shown in ((False, many[-168:]), (True, many)):
        print_newest(many, everything, lambda rows: window_table(rows, NAMES))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("2026")] == [row.window_id for row in shown]
        assert ("the newest 168 of 224; --all shows all of them" in lines) != everything


def test_late_samples_are_gone_through_once_however_many_windows_there_are() -> None:
    class Counted(list[CarriedSamples]):
        passes = 0

        def __iter__(self) -> Iterator[CarriedSamples]:
            self.passes += 1
            return super().__iter__()

    carried = Counted(CARRIED)
    window_table([replace(ROWS[0], window_id=f"2026-11-28T{hour:02}:00") for hour in range(24)], NAMES, carried)
    assert carried.passes == 1
