"""A demo that is stopped and killed, again and again, and started again: no window is lost, none is doubled, nothing
differs from a demo that nothing disturbed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from babylon_assets.config.settings import load_settings
from babylon_assets.ledger.database import Database, open_database
from tests.scenarios.conftest import (
    ANSWERS,
    Environment,
    Played,
    babylon_here,
    demo_command,
    start,
    trained_checkpoints,
)
from tests.servers import Server

#: The calls that the game's record names. Those of a window that was killed while it was played are kept beside them.
NAMED = """
SELECT made.value ->> 'callId' AS call_id FROM public.trajectories,
    jsonb_array_elements(replace("stepsJson", '\\u0000', '\\u0020')::jsonb) AS taken,
    jsonb_array_elements(taken.value -> 'llmCalls') AS made"""
PLAYED = 'SELECT count(DISTINCT "windowId") FROM public.trajectories'
TRAINING = "SELECT count(*) FROM babylon_training.training_jobs WHERE state = 'training'"
TRAINED = "SELECT count(*) FROM babylon_training.model_checkpoints WHERE step > 0"


@dataclass
class Demo:
    """A demo's database, the environment of its home, and the hours that it plays."""

    database: Database
    environment: Environment
    hours: list[str]

    def count(self, query: str) -> int:
        with self.database.connect() as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    @contextmanager
    def started_until(self, query: str, reached: int) -> Iterator[subprocess.Popen[str]]:
        """Start the demo; the block is entered as soon as a count is reached."""
        with start(self.environment, *demo_command(self.hours)) as process:
            while not self._shows(query, reached):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.005)
            yield process

    def kill_when(self, query: str, reached: int) -> None:
        with self.started_until(query, reached) as process:
            process.kill()
        assert process.returncode == -9

    def _shows(self, query: str, reached: int) -> bool:
        with self.database.connect() as conn:
            tables = conn.execute(
                "SELECT to_regclass('public.trajectories'), to_regclass('babylon_training.windows')"
            ).fetchone()
        return tables is not None and None not in tables and self.count(query) >= reached


@pytest.fixture
def demo(server: Server, tmp_path: Path, environment_of: Callable[..., Environment], demo_hours: list[str]) -> Demo:
    """A demo that was not started yet."""
    database = server.database(server.create())
    return Demo(database, environment_of(tmp_path / "home", DATABASE_URL=database.url), demo_hours)


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_stopped(demo: Demo, played_demo: Played) -> None:
    demo.kill_when(TRAINING, 1)
    assert demo.count(TRAINED) == 0
    demo.kill_when(TRAINED, 2)
    with demo.started_until(PLAYED, len(demo.hours)) as stopped:
        stopped.send_signal(signal.SIGINT)
        printed, _ = stopped.communicate(timeout=60)
    assert (stopped.returncode, "Traceback" in printed) == (130, False), printed
    printed = babylon_here(demo.environment, *demo_command(demo.hours))
    assert "babylon-agent@3" in printed
    assert trained_checkpoints(demo.database) == played_demo.checkpoints
    assert [(window, step) for window, step, _, _ in played_demo.checkpoints] == list(
        zip(demo.hours, (1, 2, 3), strict=True)
    )
    for query, expected in {
        "SELECT count(*) FROM public.trajectories": len(demo.hours) * 6,
        f"SELECT count(DISTINCT call_id) FROM ({NAMED}) AS named": len(demo.hours) * ANSWERS,
        f"SELECT count(*) FROM babylon_training.inference_calls WHERE call_id IN ({NAMED})": len(demo.hours) * ANSWERS,
        "SELECT count(*) FROM babylon_training.windows WHERE status = 'trained'": len(demo.hours),
        "SELECT count(*) FROM babylon_training.training_jobs WHERE state = 'trained'": len(demo.hours),
        "SELECT count(*) FROM babylon_training.training_jobs WHERE state NOT IN ('trained', 'failed')": 0,
    }.items():
        assert (query, demo.count(query)) == (query, expected)
    assert unfinished_runs(demo) == []


def unfinished_runs(demo: Demo) -> list[str]:
    """Dagster runs that claim to go on."""
    import psycopg

    url = demo.database.dagster_url.replace("postgresql+psycopg2", "postgresql")
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT run_id FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')")
        return [row[0] for row in rows]


@pytest.mark.slow
def test_a_second_call_says_that_all_is_done(played_demo: Played) -> None:
    picture = played_demo.home / "learning_curve.svg"
    picture.unlink()
    printed = babylon_here(played_demo.environment, *demo_command(played_demo.windows))
    assert "are done" in printed
    assert "make up" in printed
    database = open_database(load_settings(played_demo.environment, env_file=None))
    assert trained_checkpoints(database) == played_demo.checkpoints
    assert picture.read_bytes().startswith(b"<svg")
