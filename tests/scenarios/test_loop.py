"""`babylon up` alone keeps the loop going: windows that closed while nothing ran are trained in order, unattended."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from babylon_assets.core.windows import parse_window, window_of
from babylon_assets.game.fixture import create_game_tables
from babylon_assets.serving.engine import Engine
from babylon_assets.settings import Settings, load_settings
from babylon_assets.simulation.players import play_window
from babylon_assets.store import checkpoints
from babylon_assets.store.database import Database, migrate, open_database, stop_embedded
from babylon_assets.store.windows import WindowRow, get_window
from tests.scenarios.conftest import Environment, start

pytestmark = pytest.mark.slow
#: Past their grace whenever the test runs, with an empty hour between them.
HOURS = (6, 5, 3)
WINDOWS = [window_of(parse_window(window_of(datetime.now(UTC))) - timedelta(hours=back)) for back in HOURS]


@pytest.fixture
def away(environment_of: Callable[..., Environment], taught_base: Path) -> Iterator[tuple[Environment, Database]]:
    """A home whose game went on for three windows while nothing of ours ran."""
    home = Path(tempfile.mkdtemp(prefix="babylon-loop-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environment = environment_of(home, DAGSTER_PORT=str(probe.getsockname()[1]))
    settings = load_settings(environment, env_file=None)
    try:
        database = open_database(settings)
        migrate(database)
        engine = Engine(taught_base, "babylon-agent@0")
        with database.connect() as conn:
            create_game_tables(conn)
            for window in WINDOWS:
                play_window(settings, conn, window, engine)
        yield environment, database
    finally:
        stop_embedded(Settings(home=home))
        shutil.rmtree(home)


def test_after_an_outage_every_window_is_trained_in_order(away: tuple[Environment, Database]) -> None:
    environment, database = away
    with start(environment, "up") as process:
        try:
            wait_until_trained(process, database)
        finally:
            process.send_signal(signal.SIGINT)
    with database.connect() as conn:
        line = checkpoints.chain(conn, "babylon-agent")
    assert [made.window_id for made in line] == [None, *WINDOWS]
    assert len({made.dagster_run_id for made in line[1:]}) == 2


def wait_until_trained(process: subprocess.Popen[str], database: Database, seconds: float = 480) -> None:
    deadline = time.monotonic() + seconds
    states: list[str | None] = []
    rows: list[WindowRow | None] = []
    while states != ["trained"] * len(WINDOWS):
        assert process.poll() is None
        assert time.monotonic() < deadline and "failed" not in states, rows
        time.sleep(1)
        with database.connect() as conn:
            rows = [get_window(conn, window) for window in WINDOWS]
        states = [row.status if row else None for row in rows]
