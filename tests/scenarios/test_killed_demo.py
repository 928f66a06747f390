"""A demo that is killed, again and again, and started again: no window is lost, none is doubled, nothing differs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from babylon_assets.store.database import Database
from tests.scenarios.conftest import ANSWERS, Environment, babylon, start
from tests.servers import Server

WINDOWS = 4
#: The calls that the game's record names. Those of a window that was killed while it was played are kept beside them.
NAMED = """
SELECT made.value ->> 'callId' AS call_id FROM trajectories,
    jsonb_array_elements("stepsJson"::jsonb) AS taken, jsonb_array_elements(taken.value -> 'llmCalls') AS made"""
PLAYED = 'SELECT count(DISTINCT "windowId") FROM trajectories'
TRAINING = "SELECT count(*) FROM babylon_training.training_jobs WHERE state = 'training'"
TRAINED = "SELECT count(*) FROM babylon_training.model_checkpoints WHERE step > 0"


@dataclass
class Demo:
    """A demo's database and home."""

    database: Database
    environment: Environment

    def count(self, query: str) -> int:
        with self.database.connect() as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def kill_when(self, query: str, reached: int) -> None:
        """Start the demo and kill it as soon as a count is reached."""
        with start(self.environment, "demo", "--windows", str(WINDOWS)) as process:
            while not self._shows(query, reached):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.002)
            process.kill()
        assert process.returncode == -9

    def finish(self) -> str:
        return babylon(self.environment, "demo", "--windows", str(WINDOWS))

    def checkpoints(self) -> list[tuple[str, int, str, str]]:
        """Window, step, id and hash of the weights of every checkpoint after the root."""
        query = (
            "SELECT window_id, step, id, weights_sha256 FROM babylon_training.model_checkpoints"
            " WHERE step > 0 ORDER BY step"
        )
        with self.database.connect() as conn:
            return conn.execute(query.encode()).fetchall()

    def _shows(self, query: str, reached: int) -> bool:
        with self.database.connect() as conn:
            tables = conn.execute(
                "SELECT to_regclass('trajectories'), to_regclass('babylon_training.windows')"
            ).fetchone()
        return tables is not None and None not in tables and self.count(query) >= reached


@pytest.fixture
def demo(
    server: Server, tmp_path: Path, environment_of: Callable[..., Environment], early_in_the_hour: None
) -> Callable[[str], Demo]:
    def make(name: str) -> Demo:
        database = server.database(server.create())
        home = tmp_path / name
        return Demo(database, environment_of(home, DATABASE_URL=database.url))

    return make


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_stopped(demo: Callable[[str], Demo]) -> None:
    killed, whole = demo("killed"), demo("whole")
    killed.kill_when(PLAYED, 1)
    assert killed.count(TRAINED) == 0
    killed.kill_when(TRAINING, 1)
    killed.kill_when(TRAINED, 2)
    killed.kill_when(PLAYED, 4)
    printed = killed.finish()
    assert "babylon-agent@3 -> babylon-agent@4" in printed
    whole.finish()
    assert killed.checkpoints() == whole.checkpoints()
    assert [step for _, step, _, _ in killed.checkpoints()] == [1, 2, 3, 4]
    for query, expected in {
        "SELECT count(*) FROM trajectories": WINDOWS * 6,
        f"SELECT count(DISTINCT call_id) FROM ({NAMED}) AS named": WINDOWS * ANSWERS,
        f"SELECT count(*) FROM babylon_training.inference_calls WHERE call_id IN ({NAMED})": WINDOWS * ANSWERS,
        "SELECT count(*) FROM babylon_training.windows WHERE status = 'trained'": WINDOWS,
        "SELECT count(*) FROM babylon_training.training_jobs WHERE state = 'trained'": WINDOWS,
        "SELECT count(*) FROM babylon_training.training_jobs WHERE state NOT IN ('trained', 'failed')": 0,
    }.items():
        assert (query, killed.count(query)) == (query, expected)
    assert unfinished_runs(killed) == []


def unfinished_runs(demo: Demo) -> list[str]:
    """Dagster runs that claim to go on."""
    import psycopg

    url = demo.database.dagster_url.replace("postgresql+psycopg2", "postgresql")
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT run_id FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')")
        return [row[0] for row in rows]


@pytest.mark.slow
def test_a_second_call_says_that_all_is_done(demo: Callable[[str], Demo]) -> None:
    once = demo("once")
    once.finish()
    before = once.checkpoints()
    printed = once.finish()
    assert "are done" in printed
    assert "make up" in printed
    assert once.checkpoints() == before
    picture = Path(once.environment["BABYLON_HOME"]) / "learning_curve.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ctrl_c_is_quiet(demo: Callable[[str], Demo]) -> None:
    stopped = demo("stopped")
    with start(stopped.environment, "demo", "--windows", str(WINDOWS)) as process:
        while not stopped._shows(PLAYED, 1):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in printed
