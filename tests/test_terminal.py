"""Texts of agents on the terminal and in the log: shown as they are, and none of them acts."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from rich.table import Table
from typer.testing import CliRunner

from babylon_assets.cli import terminal
from babylon_assets.cli.app import app, tell
from babylon_assets.cli.terminal import Terminal, bold, number, plain, show_log
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.trajectories import Message
from babylon_assets.evaluation.recorded_prompts import answer_texts
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.verdicts import StoredVerdict, store_verdict
from babylon_assets.ledger.waiting import noting_wait, tell_wait
from babylon_assets.ledger.windows import upsert_window
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.evaluation.players import Scripted
from tests.ledger.values import CHAIN, checkpoint, dataset, root, sample

#: A markup that closes nothing, one that hides, a terminal's title, its colours, a cursor that goes back, a text that
#: shows itself backwards.
ATTACK = "[/x] [conceal]seen[/] :bomb: \x1b]0;owned\x07 \x1b[2J \x9b31m red\rgone \u202egnp.exe"
SHOWN = "[/x] [conceal]seen[/] :bomb: \ufffd]0;owned\ufffd \ufffd[2J \ufffd31m red\ufffdgone \ufffdgnp.exe"
ACTS = set("\x1b\x07\x9b\r\u202e")
Babylon = Callable[..., Result]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal with colours, for both streams."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    console = Terminal(stderr=True)
    assert console.is_terminal
    console.width = 300
    monkeypatch.setattr(terminal, "errors", console)
    monkeypatch.setattr("babylon_assets.cli.app.errors", console)
    yield console
    logging.getLogger("babylon_assets").handlers = []


def seen(printed: str) -> str:
    """What is printed, without the colours of our own."""
    return re.sub(r"\x1b\[[0-9;]*m", "", printed)


def test_a_text_a_cell_and_an_error_are_shown_and_do_not_act(
    screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(ATTACK, title=ATTACK)
    table.add_row(ATTACK)
    screen.print(ATTACK, soft_wrap=True)
    screen.print(bold(ATTACK), ATTACK, soft_wrap=True)
    screen.print(table)
    tell(PermanentError(ATTACK))
    printed = capsys.readouterr().err
    assert "\x1b[1m" in printed  # bold is seen
    assert seen(printed).count(SHOWN) == 7
    assert not set(seen(printed)) & ACTS


def test_a_log_has_one_line_for_an_entry_and_none_of_them_acts(
    screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    show_log("INFO")
    log = logging.getLogger("babylon_assets.test")
    log.info("%s\nERROR all is lost", ATTACK)
    try:
        raise ValueError(ATTACK)
    except ValueError:
        log.exception("it failed")
    printed = seen(capsys.readouterr().err)
    assert f"{SHOWN} ERROR all is lost" in printed
    assert f"ValueError: {SHOWN}" in printed and "Traceback" in printed
    assert not set(printed) & ACTS


@pytest.fixture
def babylon(tmp_path: Path, game_database: Database) -> Babylon:
    """Run a command over a game and a ledger whose texts attack the terminal."""
    with game_database.connect() as conn:
        add_users(conn, "a1")
        add_trajectories(conn, trajectory("t1", windowId=ATTACK[-48:]), trajectory("t2", windowId="[/x]"))
        upsert_window(conn, "2026-10-01T04:00", status="failed", reason=f"SourceError: {ATTACK}")
        checkpoints.ensure_root(conn, root())
        kept = dataset(sample(1, window="2026-10-01T05:00"), window="2026-10-01T05:00")
        save_dataset(conn, kept)
        tried = checkpoint(1, "2026-10-01T05:00", kept.id, path=ATTACK)
        checkpoints.insert_checkpoint(conn, tried)
        upsert_window(conn, "2026-10-01T05:00", status="trained", checkpoint_id=tried.id)
        findings = [{"rule": "market", "holds": False, "words": ATTACK}]
        verdict = StoredVerdict(
            checkpoint_id=tried.id,
            chain=CHAIN,
            champion_id=None,
            passed=False,
            why=ATTACK,
            verdict={"passed": False, "findings": findings},
        )
        store_verdict(conn, verdict)
        promotions.promote(conn, tried, by=ATTACK, why=ATTACK)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(
            app,
            list(arguments),
            env={"BABYLON_HOME": str(tmp_path), "DATABASE_URL": game_database.url, "COLUMNS": "300"},
        )

    return run


#: Each command with a part of what it prints.
COMMANDS = {
    ("windows",): "SourceError: [/x] [conceal]seen[/]",
    ("status", "2026-10-01T04:00"): f"SourceError: {SHOWN}",
    ("status",): "newest window",
    ("status", "2026-10-01T05:00"): f"gate  rejected: 1 of 1 rules does not hold: {SHOWN}",
    ("chains",): f"{CHAIN}@1",
    ("lineage", f"{CHAIN}@1"): SHOWN,
    ("promotions",): "[/x]",
    ("doctor",): "database",
    ("status", ATTACK): "[/x]",
    ("lineage", ATTACK): "[/x]",
    ("forget", "--agent", ATTACK): "[/x]",
    ("export", ATTACK): "[/x]",
    ("import", ATTACK): "[/x]",
}


def test_no_command_lets_a_text_act(babylon: Babylon) -> None:
    for command, text in COMMANDS.items():
        done = babylon(*command)
        printed = done.stdout + done.stderr
        assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
        assert text in printed, (command, printed)
        assert not set(printed) & ACTS, (command, printed)
        assert not re.search(r"[ \t]$", done.stdout, re.MULTILINE), (command, printed)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (None, "-"),
        ({}, "-"),
        ([], "-"),
        ("text", "text"),
        (7, "7"),
        ({"a": 0.98765432, "b": [1.0, None]}, "a: 0.9877, b: 1.000, -"),
        (0.404, "0.4040"),
    ],
)
def test_values_are_rounded_for_people(value: object, text: str) -> None:
    assert plain(value) == text


def test_no_line_in_a_pipe_ends_with_blanks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("name", "what is said of it", box=None, pad_edge=False, caption="short")
    table.add_row("a", "b")
    paper = Terminal(stderr=False)
    paper.print(table)
    paper.print("words " * 12)
    paper.print("name  ", "", soft_wrap=True)
    paper.print()
    assert [line for line in capsys.readouterr().out.split("\n") if line != line.rstrip()] == []


def test_numbers_of_a_table_have_the_same_digits() -> None:
    assert [number(value) for value in (0.5, 0.123456, -0.0, 12, None)] == ["0.5000", "0.1235", "0.000", "12", "-"]
    assert terminal.as_set({"rate": 0.0015, "method": "sft"}) == {"rate": "0.0015", "method": "sft"}


def test_a_fault_is_shown_with_its_place_and_does_not_act(babylon: Babylon, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(ATTACK)

    monkeypatch.setattr("babylon_assets.cli.status.overview", broken)
    done = babylon("status")
    assert done.exit_code == 1
    assert f"ZeroDivisionError: {SHOWN}" in done.stderr and "Traceback" in done.stderr
    assert not set(done.stderr) & ACTS


def test_a_terminal_without_the_letters_shows_their_numbers(database: Database, tmp_path: Path) -> None:
    with database.connect() as conn:
        upsert_window(conn, "2026-10-01T04:00", status="failed", reason="no “ünïcode” 📈 here")
    environment = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": database.url, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "babylon_assets", "status", "2026-10-01T04:00"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    assert rb"no \u201c\xfcn\xefcode\u201d \U0001f4c8 here" in done.stdout


def test_a_long_task_is_told_with_its_share_and_a_wait_with_its_reason_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "TELL_EVERY_SECONDS", 0.01)
    with terminal.waiting("preparing", beside_bar=True) as say, terminal.progress() as bar:
        heard = terminal.share_callback(bar, say)
        for share in (0.01, 0.3):
            heard("teaching", share)
        time.sleep(0.1)
        shares = capsys.readouterr().err.splitlines()
        with noting_wait("another run (247b24ca), which is training", time.monotonic() - 12):
            time.sleep(0.1)
            waits = capsys.readouterr().err.splitlines()
    assert "still teaching: 30%, 0 s" in shares and len(shares) < 20
    assert "still waiting for another run (247b24ca), which is training: 12 s" in waits


def test_a_wait_is_a_sentence_without_a_level(screen: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    show_log("INFO")
    tell_wait("another run (247b24ca), which is training")
    told = seen(capsys.readouterr().err)
    assert told.strip() == "waiting for another run (247b24ca), which is training"


def test_whoever_waits_is_told_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "TELL_EVERY_SECONDS", 0.01)
    told = ""
    # What a training prints goes elsewhere meanwhile.
    with terminal.waiting("asking both") as say, contextlib.redirect_stderr(io.StringIO()):
        for _ in range(1000):
            told += capsys.readouterr().err
            if told.count("\n") > 1 and "comparing" not in told:
                say("comparing them")
            if "comparing" in told:
                break
            time.sleep(0.01)
    first, second, *_, last = told.splitlines()
    assert first == "asking both" and re.fullmatch(r"still asking both: \d+ s", second)
    assert re.fullmatch(r"still comparing them: \d+ s", last)


def test_beside_a_bar_a_terminal_is_told_once_and_a_pipe_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "TELL_EVERY_SECONDS", 0.01)
    for on_a_terminal in (True, False):
        monkeypatch.setattr(terminal.errors, "_force_terminal", on_a_terminal)
        with terminal.waiting("playing", beside_bar=True) as say:
            say("training")
            time.sleep(0.1)
        assert ("still training" in capsys.readouterr().err) != on_a_terminal


def test_whoever_is_asked_is_shown_with_how_many_prompts_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, so that there is something to say; in a pipe each part is a line."""
    policy, said = Scripted(lambda prompt, _seed: prompt), io.StringIO()
    monkeypatch.setattr(terminal.errors, "_file", said)
    prompts = [(f"p{number}", [Message("user", str(number))]) for number in range(20)]
    with terminal.progress() as bar:
        heard = partial(terminal.count_callback(bar), "babylon-agent@1")
        texts = answer_texts(policy, prompts, heard)
    assert (texts, policy.batches) == ([str(number) for number in range(20)], [8, 8, 4])
    lines = [f"asking babylon-agent@1: {answered} of 20 prompts" for answered in (8, 16, 20)]
    assert said.getvalue().splitlines() == lines
