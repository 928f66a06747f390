"""`babylon up --simulate`, left alone for many windows while each of its processes is killed in turn.

`make soak` runs it; `WINDOWS` says for how long. What it measured is printed, and shown by `-s`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import pytest

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.ledger.database import embedded_data, stop_embedded
from tests.scenarios.conftest import Environment, free_port, start
from tests.scenarios.processes import MARKS, child_of, children, command_line, descendants, memory, started, worker_of
from tests.servers import passable_folder

pytestmark = [pytest.mark.slow, pytest.mark.soak]
#: Hours that are played and trained; about a minute each. The first of them see a kill each, the others none.
WINDOWS = 12
AGENTS = 6
VICTIMS = ("daemon", "webserver", "worker", "gateway", "postgres", "simulation")
SAMPLE_SECONDS = 5.0
#: Megabytes and share by which a process may be larger in the last quarter of the time without kills than in its first.
GROWTH, GROWTH_SHARE = 20.0, 0.1
#: Outcomes that come in later give a trained hour a newer dataset, and it is `ready` again; its checkpoint stays.
ENDED = "(status IN ('trained', 'thin') OR checkpoint_id IS NOT NULL)"


@dataclass
class Loop:
    """A running `babylon up --simulate` and what is seen of it."""

    settings: Settings
    process: subprocess.Popen[str]
    family: set[tuple[int, str]] = field(default_factory=set)
    memory: dict[tuple[str, int], list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    connections: list[int] = field(default_factory=list)
    well: bool = False

    def ask(self, query: str, database: str = "babylon", seconds: float = 120) -> list[tuple[Any, ...]]:
        """Rows; a server that was killed is waited for, and never started from here."""
        deadline = time.monotonic() + seconds
        folder = embedded_data(self.settings)
        while True:
            assert self.process.poll() is None, "babylon up has ended"
            try:
                address = f"host={folder} user=postgres dbname={database} application_name=soak"
                with psycopg.connect(address, connect_timeout=5) as conn:
                    return conn.execute(query.encode()).fetchall()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL does not come back"
                time.sleep(0.2)

    def pid(self, role: str) -> int | None:
        """The process of a role; None while there is none."""
        if role == "postgres":
            return int((embedded_data(self.settings) / "postmaster.pid").read_text().split()[0])
        return worker_of(self.process.pid) if role == "worker" else child_of(self.process.pid, role)

    def look(self) -> None:
        """One sample."""
        for pid in descendants(self.process.pid):
            if (ticks := started(pid)) is not None:
                self.family.add((pid, ticks))
        long_lived: dict[str, int | None] = {role: self.pid(role) for role in MARKS}
        long_lived["up"] = self.process.pid
        for role in ("webserver", "daemon"):
            below = children(long_lived[role] or 0)
            long_lived[f"code of the {role}"] = next((p for p in below if b"grpc" in command_line(p)), None)
        for role, found in long_lived.items():
            if found is not None:
                self.memory[role, found].append((time.monotonic(), memory(found)))

    def count_connections(self) -> int:
        [(found,)] = self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'soak'"
        )
        return int(found)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, "babylon up has ended"
            assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
            time.sleep(0.2)
        return found

    def done(self) -> int:
        [(found,)] = self.ask(f"SELECT count(*) FROM babylon_training.windows WHERE {ENDED}")
        return int(found)


@pytest.fixture
def loop(environment_of: Callable[..., Environment]) -> Iterator[Loop]:
    home = passable_folder("babylon-soak-")
    environment = environment_of(
        home,
        PATH=f"{Path(sys.executable).parent}:{os.defpath}",  # runs show their output with `tail`
        DAGSTER_PORT=str(free_port()),
        GATEWAY_PORT=str(free_port()),
        WINDOW_GRACE_MINUTES="0",
        EVALUATION_SEEDS="8",
        MAX_KL="100",
    )
    try:
        with start(environment, "up", "--simulate", "--hours", str(WINDOWS)) as process:
            assert process.stdout is not None
            assert any("Dagster UI" in line for line in process.stdout)
            seen = Loop(load_settings(environment, env_file=None), process)
            yield seen
            process.kill()
    finally:
        stop_embedded(Settings(home=home))
    if seen.well:  # otherwise its logs and its database are wanted
        shutil.rmtree(home)


def test_whatever_is_killed_every_window_is_trained_once(loop: Loop) -> None:
    told = _Lines(loop.process)
    stop = threading.Event()
    sampling = threading.Thread(target=_sample, args=(loop, stop))
    sampling.start()
    try:
        back = {}
        for number, victim in enumerate(VICTIMS):
            loop.wait(lambda: loop.done() > number, f"window {number}", 600)  # noqa: B023
            back[victim] = kill(loop, victim)
        quiet = time.monotonic()
        loop.wait(lambda: loop.done() >= WINDOWS and settled(loop), "all windows", 180 * WINDOWS)
        connections = [loop.count_connections() for _ in range(20) if not time.sleep(0.5)]
    finally:
        stop.set()
        sampling.join()
    every_hour_was_played_once(loop)
    every_window_was_trained_once(loop)
    grown = growth(loop, quiet)
    loop.process.send_signal(signal.SIGINT)
    assert loop.process.wait(60) == 0
    left = {pid: command_line(pid) for pid, ticks in loop.family if started(pid) == ticks}
    assert [found for found in left.values() if b"postgres" not in found] == []  # the server is meant to stay
    with psycopg.connect(f"host={embedded_data(loop.settings)} user=postgres dbname=babylon") as conn:
        query = b"SELECT datname, application_name, query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
        assert conn.execute(query + b"backend_type = 'client backend'").fetchall() == []
    _print(loop, back, connections, grown, told)
    assert min(connections) <= 12 and max(loop.connections) <= 60
    larger = {role: sizes for role, sizes in grown.items() if sizes[1] > GROWTH + (1 + GROWTH_SHARE) * sizes[0]}
    assert len(grown) >= 6 and larger == {}
    loop.well = True


def kill(loop: Loop, victim: str) -> float:
    """Kill it, and say how many seconds passed until another one was there."""
    pid = loop.wait(lambda: loop.pid(victim), f"a {victim}", 300)
    if victim == "worker":
        time.sleep(1.0)  # into the run
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    if victim == "postgres":
        loop.wait(lambda: started(pid) is None, "the end of PostgreSQL", 10)
        loop.ask("SELECT 1")
    else:
        loop.wait(lambda: loop.pid(victim) not in (None, pid), f"another {victim}", 120)
    return time.monotonic() - killed


def settled(loop: Loop) -> bool:
    """No run is under way, and no window waits."""
    [(runs,)] = loop.ask("SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')", "dagster")
    [(left,)] = loop.ask(f"SELECT count(*) FROM babylon_training.windows WHERE NOT {ENDED}")
    return not runs and not left


def every_hour_was_played_once(loop: Loop) -> None:
    """No hour is lost between the first and the last, and none has a row too many."""
    rows = loop.ask('SELECT "windowId"::timestamp, count(*) FROM public.trajectories GROUP BY 1 ORDER BY 1')
    assert len(rows) >= WINDOWS
    assert {count for _, count in rows} == {AGENTS}
    hours = [hour for hour, _ in rows]
    assert {(later - hour).total_seconds() for hour, later in pairwise(hours)} == {3600}


def every_window_was_trained_once(loop: Loop) -> None:
    windows = loop.ask("SELECT window_id, checkpoint_id IS NOT NULL FROM babylon_training.windows ORDER BY 1")
    made = Counter(
        row[0] for row in loop.ask("SELECT window_id FROM babylon_training.model_checkpoints WHERE step > 0")
    )
    trained = Counter(
        row[0] for row in loop.ask("SELECT window_id FROM babylon_training.training_jobs WHERE state = 'trained'")
    )
    assert len({window for window, _ in windows}) == len(windows) >= WINDOWS
    once = Counter(window for window, has_one in windows if has_one)
    assert made == once
    assert trained == once
    [(under_way,)] = loop.ask(
        "SELECT count(*) FROM babylon_training.training_jobs WHERE state NOT IN ('trained', 'failed', 'skipped')"
    )
    assert under_way == 0
    judged = loop.ask("SELECT checkpoint_id FROM babylon_training.gate_verdicts")
    assert len(judged) == len(set(judged)) == len(once)


def growth(loop: Loop, since: float) -> dict[str, tuple[float, float]]:
    """Megabytes of each process that lived through the time without kills: median of its first and last quarter."""
    found = {}
    for (role, pid), samples in loop.memory.items():
        sizes = [size / 1e6 for at, size in samples if at > since + 30]
        if len(sizes) >= 12 and started(pid) is not None:
            quarter = len(sizes) // 4
            found[role] = (round(median(sizes[:quarter]), 1), round(median(sizes[-quarter:]), 1))
    return found


def _sample(loop: Loop, stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_SECONDS):
        try:
            loop.look()
            loop.connections.append(loop.count_connections())
        except (OSError, ValueError, DatabaseUnavailable):  # a process or a file that is gone in this moment
            continue


class _Lines:
    """What `up` says, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        assert process.stdout is not None
        self._stream = process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in iter(self._stream.readline, ""):
            self.lines.append(line.strip())
            sys.stdout.write(line)


def _print(
    loop: Loop, back: dict[str, float], connections: list[int], grown: dict[str, tuple[float, float]], told: _Lines
) -> None:
    told_of = {"seconds until it was back": {victim: round(seconds, 1) for victim, seconds in back.items()}}
    numbers = {
        **told_of,
        "connections at rest": [min(connections), max(connections)],
        "connections at most": max(loop.connections),
        "megabytes, first and last quarter without kills": grown,
        "processes seen": len(loop.family),
        "said": told.lines,
    }
    sys.stdout.write(json.dumps(numbers, indent=2) + "\n")
