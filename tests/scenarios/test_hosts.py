"""Two hosts on one PostgreSQL: a code server in a network namespace of its own on each, whose runs are its processes.

Webserver and daemon stand on a third, this one. What the hosts share is PostgreSQL over TCP and the folder of the
checkpoints. Needs root and `ip`, which make the namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from babylon_assets.config.settings import load_settings, subprocess_environment
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.database import Database, ensure_dagster_database, migrate, open_database
from babylon_assets.ledger.windows import list_windows
from babylon_assets.orchestration.runtime import dagster_home
from babylon_assets.orchestration.services import Services
from babylon_assets.serving.engine.engine import Engine
from benchmarks.launched.ui import Ui
from tests.scenarios.conftest import CHECKOUT, Environment, free_port
from tests.servers import system_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="namespaces need root and ip"),
]
NETWORK, HERE, HOSTS = "10.77.43.0/24", "10.77.43.1", {"one": "10.77.43.2", "two": "10.77.43.3"}
PORT = 4266


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def network() -> Iterator[str]:
    """A bridge of this host with a namespace behind it for each of the others; gives what their names begin with."""
    name = f"bab{os.getpid() % 100_000}"
    with ExitStack() as undo:
        ip("link", "add", name, "type", "bridge")
        undo.callback(ip, "link", "del", name)
        ip("address", "add", f"{HERE}/24", "dev", name)
        ip("link", "set", name, "up")
        for number, (host, address) in enumerate(HOSTS.items()):
            inside, outside = f"{name}i{number}", f"{name}o{number}"
            ip("netns", "add", f"{name}-{host}")
            undo.callback(ip, "netns", "del", f"{name}-{host}")
            ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", f"{name}-{host}")
            ip("link", "set", outside, "master", name, "up")
            for command in (("address", "add", f"{address}/24", "dev", inside), ("link", "set", inside, "up")):
                ip("-n", f"{name}-{host}", *command)
            ip("-n", f"{name}-{host}", "link", "set", "lo", "up")
        yield name


@contextmanager
def code_server(namespace: str, address: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """The code server of a host, until the end of the block; what it started ends with it."""
    served = ["-m", "dagster", "api", "grpc", "-h", address, "-p", str(PORT), "-m", "babylon_assets.definitions"]
    command = ["ip", "netns", "exec", namespace, sys.executable, *served]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_for(address, log)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, PORT)) == 0:
                return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)


@contextmanager
def seen(conninfo: str) -> Iterator[set[str]]:
    """The addresses that connect to the server's databases during the block."""
    found: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            while not stop.wait(0.1):
                rows = conn.execute("SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE datname = 'babylon'")
                found.update(address for (address,) in rows if address)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def played(database: Database, base: Path, environment: Environment, windows: list[str]) -> None:
    settings = load_settings(environment, env_file=None)
    with database.connect() as conn:
        create_game_tables(conn)
        for window in windows:
            play_window(settings, conn, window, Engine(base, f"{settings.model_name}@0"))


def test_two_hosts_train_every_window_once(
    environment_of: Callable[..., Environment], demo_hours: list[str], taught_base: Path, tmp_path: Path
) -> None:
    with network() as names, system_server(HERE, NETWORK) as postgres:
        with psycopg.connect(postgres.conninfo(), autocommit=True) as conn:
            conn.execute("CREATE DATABASE babylon")
        url = postgres.at("babylon").url()
        environment = environment_of(tmp_path, DATABASE_URL=url, AUTOMATION="false", DAGSTER_PORT=str(free_port()))
        settings = load_settings(environment, env_file=None)
        database = open_database(settings)
        migrate(database)
        ensure_dagster_database(settings)
        played(database, taught_base, environment, demo_hours)
        workspace = tmp_path / "workspace.yaml"
        servers = (
            f"  - grpc_server: {{host: {at}, port: {PORT}, location_name: {host}}}" for host, at in HOSTS.items()
        )
        workspace.write_text("\n".join(["load_from:", *servers]))
        inherited = subprocess_environment(settings, database.dagster_url)
        inherited["PYTHONPATH"] = str(CHECKOUT)
        home = dagster_home(settings)
        with ExitStack() as running:
            for host, address in HOSTS.items():
                log = tmp_path / f"{host}.log"
                running.enter_context(code_server(f"{names}-{host}", address, inherited, log))
            services = running.enter_context(Services(home, settings.dagster_port, inherited, workspace=workspace))
            services.wait_until_ready()
            addresses = running.enter_context(seen(postgres.conninfo()))
            ui = Ui(services)
            with ThreadPoolExecutor(len(HOSTS)) as pool:
                for window in demo_hours:
                    list(pool.map(lambda host, window=window: ui.run(host, "train_window", window), HOSTS))
        assert set(HOSTS.values()) <= addresses
        with database.connect() as conn:
            rows = list_windows(conn)
            made = conn.execute("SELECT window_id FROM babylon_training.model_checkpoints WHERE step > 0").fetchall()
            jobs = conn.execute("SELECT window_id, state FROM babylon_training.training_jobs").fetchall()
        assert [row.status for row in rows] == ["trained"] * len(demo_hours)
        assert Counter(window for (window,) in made) == dict.fromkeys(demo_hours, 1)
        assert sorted(jobs) == [(window, "trained") for window in demo_hours]
