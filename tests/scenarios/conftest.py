"""The command as another process, on a small game that is played and trained in seconds."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Database, open_database, stop_embedded
from tests.servers import passable_folder

Environment = dict[str, str]
SMALL_GAME = {
    "SIMULATION_ROOMS": "1",
    "SIMULATION_AGENTS_PER_ROOM": "6",
    "SIMULATION_TICKS": "8",
    "MIN_SAMPLES_PER_WINDOW": "4",
    "LORA_RANK": "4",
    "GRADIENT_TOKENS": "1024",
    "EVALUATION_SEEDS": "8",
}
ANSWERS = 48
#: Hours that a demo of the tests plays; they end early enough for others to follow that are over as well.
HOURS, HOURS_AGO = 3, 8
#: Children of `up` work in another folder, and are to run this very code.
CHECKOUT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """`babylon` with these arguments; what it prints is one stream.

    Ctrl-C reaches it even where the tests themselves were started to ignore it, as a shell starts what runs behind it.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "babylon_assets", *arguments],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def babylon(environment: Mapping[str, str], *arguments: str) -> str:
    """Run `babylon` to its end and give what it printed; it has to succeed."""
    with start(environment, *arguments) as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


@pytest.fixture(scope="session")
def environment_of(taught_base: Path) -> Callable[..., Environment]:
    """The environment of a home with a small game."""

    def make(home: Path, **more: str) -> Environment:
        places = {"BASE_MODEL": str(taught_base), "BABYLON_HOME": str(home), "PATH": str(Path(sys.executable).parent)}
        return {**SMALL_GAME, **places, "PYTHONPATH": str(CHECKOUT), **more}

    return make


@dataclass(frozen=True)
class Played:
    """A home with a demo that nothing disturbed. Its server may run or not; take a copy to change something.

    Attributes:
        windows: the hours that were played, oldest first.
        checkpoints: as of `trained_checkpoints`.
    """

    home: Path
    environment: Environment
    windows: list[str]
    checkpoints: list[tuple[str, int, str, str]]

    def copy_to(self, home: Path) -> None:
        """Copy the home, with the server stopped; its checkpoints go on lying where they are."""
        stop_embedded(Settings(home=self.home))
        subprocess.run(["cp", "--archive", f"{self.home}/.", str(home)], check=True)


@pytest.fixture(scope="session")
def demo_hours() -> list[str]:
    """The hours that demos play: the same ones for the whole session, however long that takes."""
    return HOURLY.closed(datetime.now(UTC), HOURS + HOURS_AGO)[:HOURS]


@pytest.fixture(scope="session")
def played_demo(environment_of: Callable[..., Environment], demo_hours: list[str]) -> Iterator[Played]:
    """One demo for all tests of the session, on the embedded database."""
    home = passable_folder("babylon-demo-")
    environment = environment_of(home)
    try:
        babylon_here(environment, *demo_command(demo_hours))
        database = open_database(load_settings(environment, env_file=None))
        yield Played(home, environment, demo_hours, trained_checkpoints(database))
    finally:
        stop_embedded(Settings(home=home))
        shutil.rmtree(home)


def demo_command(hours: list[str]) -> list[str]:
    """The arguments that play these hours."""
    return ["demo", "--windows", str(len(hours)), "--until", hours[-1]]


def trained_checkpoints(database: Database) -> list[tuple[str, int, str, str]]:
    """Window, step, id and hash of the weights of every checkpoint after the root."""
    with database.connect() as conn:
        return conn.execute(
            "SELECT window_id, step, id, weights_sha256 FROM babylon_training.model_checkpoints"
            " WHERE step > 0 ORDER BY step"
        ).fetchall()


def babylon_here(environment: Mapping[str, str], *arguments: str) -> str:
    """As `babylon`, in this process: for commands of which only the answer matters, without the seconds of a start."""
    done = CliRunner().invoke(app, list(arguments), env={**environment, "COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="session")
def early_in_the_hour() -> None:
    """Tests that run several commands expect one set of closed hours: wait when the hour is about to end."""
    now = datetime.now(UTC)
    left = 3600 - (now.minute * 60 + now.second)
    if left < 100:
        time.sleep(left + 1)
