"""A child that dies is told of, takes what it started along, and is brought back a bounded number of times."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from babylon_assets.domain.errors import PermanentError
from babylon_assets.orchestration import children
from babylon_assets.orchestration.children import Child

#: Writes its own id and that of a child of its own, then waits.
PARENT = "import os, subprocess, time; p = subprocess.Popen(['sleep', '60']); print(os.getpid(), p.pid, flush=True)\n"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAUSES", (0.0, 0.0))


@pytest.fixture
def child_of(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    made = []

    def make(program: str) -> Child:
        made.append(Child("player", ["-c", program], tmp_path, os.environ, tmp_path / "player.log"))
        made[-1].start()
        return made[-1]

    yield make
    for child in made:
        child.end(0)


def noticed(child: Child) -> str:
    """What is said of the death, once it is noticed."""
    deadline = time.monotonic() + 10
    while (told := child.noticed_death()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return told


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"{pid} lives"
        time.sleep(0.01)


def pids(child: Child, starts: int) -> list[int]:
    deadline = time.monotonic() + 10
    while len(lines := child.log.read_text().splitlines()) < starts:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(word) for word in lines[-1].split()]


def test_a_killed_child_takes_its_own_along_and_is_started_again(child_of: Callable[[str], Child]) -> None:
    child = child_of(PARENT + "time.sleep(60)")
    leader, grandchild = pids(child, 1)
    assert child.noticed_death() is None and not child.is_due
    os.kill(leader, signal.SIGKILL)
    assert "the player was ended by SIGKILL and is started again" in noticed(child)
    wait_until_gone(grandchild)
    assert child.noticed_death() is None and child.is_due
    child.start()
    assert not child.is_due
    again = pids(child, 2)
    assert {leader, grandchild}.isdisjoint(again)
    child.send(signal.SIGINT)
    child.end(time.monotonic() + 10)
    for pid in again:
        wait_until_gone(pid)


def test_one_that_does_not_stay_up_is_given_up_with_its_log(child_of: Callable[[str], Child]) -> None:
    child = child_of("import sys; print('no such board'); sys.exit(3)")
    for _ in children.PAUSES:
        assert "ended with code 3" in noticed(child)
        child.start()
    with pytest.raises(PermanentError, match=r"ended with code 3, for the 3. time in a row; (.|\n)*no such board"):
        noticed(child)


def test_one_that_was_steady_in_between_is_not_given_up(
    child_of: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STEADY_SECONDS", 0.0)
    child = child_of("pass")
    for _ in range(2 * len(children.PAUSES)):
        assert noticed(child).endswith(f"is started again in 0 s; its log: {child.log}")
        assert child.is_due
        child.start()


def test_it_waits_for_its_pause(child_of: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAUSES", (0.2, 60.0))
    child = child_of("pass")
    assert noticed(child).endswith(f"is started again in 0 s; its log: {child.log}")
    died = time.monotonic()
    while not child.is_due:
        time.sleep(0.01)
    assert time.monotonic() - died > 0.15
    child.start()
    noticed(child)
    assert not child.is_due


def test_a_log_is_bounded_while_the_child_goes_on_writing(child_of: Callable[[str], Child]) -> None:
    child = child_of("import sys\nfor n in range(10**9): print(f'line {n:09}', flush=n % 64 == 0)")
    kept = child.log.with_name("player.log.1")
    for _ in range(3):
        deadline = time.monotonic() + 10
        while child.log.stat().st_size <= 100_000:
            assert time.monotonic() < deadline, "the child writes no more"
            time.sleep(0.01)
        child.trim_log(most=100_000)
        assert kept.stat().st_size == 100_000
        assert b"\0" not in kept.read_bytes()
    time.sleep(0.1)
    assert child.log.read_bytes().lstrip(b"line 0123456789\n") == b""  # it went on at the beginning, without a hole


def test_a_log_whose_end_cannot_be_kept_is_begun_anew_all_the_same(child_of: Callable[[str], Child]) -> None:
    child = child_of("import time; print('x' * 1000, flush=True); time.sleep(60)")
    pause_until = time.monotonic() + 10
    while child.log.stat().st_size < 1000 and time.monotonic() < pause_until:
        time.sleep(0.01)
    child.log.with_name("player.log.1").mkdir()
    child.trim_log(most=10)
    assert child.log.stat().st_size == 0
