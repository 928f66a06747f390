"""A run that waits for another's place in the pool: it says so, costs nothing, and ends when it is told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.runtime import open_instance

WAIT = [sys.executable, "-m", "tests.orchestration.hanging"]


@pytest.fixture
def environment(tmp_path: Path, database: Database) -> dict[str, str]:
    settings = Settings(home=tmp_path, database_url=database.url)
    with open_instance(settings, database):
        return subprocess_environment(settings, database.dagster_url)


@pytest.fixture
def stopped(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the place of the pool and does nothing any more."""
    with subprocess.Popen(WAIT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield process
        process.kill()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_says_for_whom_it_sleeps_and_a_signal_ends_it(
    environment: dict[str, str], stopped: subprocess.Popen[str]
) -> None:
    waiting = [subprocess.Popen(WAIT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in waiting:
            assert process.stderr is not None
            told = next(line for line in process.stderr if "waiting for" in line)
            assert re.search(r"waiting for another run \(\w+\), which is training", told), told
        before = [cpu_seconds(process.pid) for process in waiting]
        time.sleep(2)
        used = [cpu_seconds(process.pid) - earlier for process, earlier in zip(waiting, before, strict=True)]
        assert max(used) < 0.4
        for process, number in zip(waiting, (signal.SIGINT, signal.SIGTERM), strict=True):
            process.send_signal(number)
            started = time.monotonic()
            process.communicate(timeout=20)
            assert time.monotonic() - started < 10
            assert process.returncode != 0
    finally:
        for process in waiting:
            process.kill()
            process.wait()
