"""The command as another process, on a small game that is played and trained in seconds."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

Environment = dict[str, str]
SMALL_GAME = {
    "SIMULATION_ROOMS": "1",
    "SIMULATION_AGENTS_PER_ROOM": "6",
    "SIMULATION_TICKS": "8",
    "MIN_SAMPLES_PER_WINDOW": "4",
    "LORA_RANK": "4",
    "GRADIENT_TOKENS": "1024",
}
ANSWERS = 48
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


@pytest.fixture(scope="session")
def early_in_the_hour() -> None:
    """Tests that run several commands expect one set of closed hours: wait when the hour is about to end."""
    now = datetime.now(UTC)
    left = 3600 - (now.minute * 60 + now.second)
    if left < 100:
        time.sleep(left + 1)
