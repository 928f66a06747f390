"""Webserver and daemon as children: one set per home, no taken port, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.cli.up import say_begin
from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.children import Child
from babylon_assets.orchestration.services import Services
from babylon_assets.orchestration.up_lock import only_one
from tests.scenarios.processes import child_of, children, descendants


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def gateway_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_second_one_is_told_who_serves(tmp_path: Path) -> None:
    second = only_one(tmp_path)
    with only_one(tmp_path), pytest.raises(PermanentError, match=f"as process {os.getpid()}"):
        second.__enter__()
    with only_one(tmp_path):
        pass


def test_a_taken_port_is_named_with_what_to_set(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=f"port {port} .* DAGSTER_PORT={port + 1}"):
            Services(tmp_path / "dagster", port, {}).__enter__()


def test_up_looks_at_its_ports_before_it_begins_a_database(tmp_path: Path, gateway_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {"BABYLON_HOME": f"{tmp_path}/home", "DATABASE_URL": None, "COLUMNS": "500"}
        variables |= {"DAGSTER_PORT": str(gateway_port), "GATEWAY_PORT": str(port)}
        done = CliRunner().invoke(app, ["up"], env=variables)
    assert done.exit_code == 1 and f"port {port} of 127.0.0.1 is taken" in done.output
    assert not (tmp_path / "home" / "postgres").exists()


def test_what_up_says_of_where_partitions_begin() -> None:
    now = HOURLY.of(datetime.now(UTC))
    assert "no window before it has a record" in say_begin(Settings(window_start=now.id), from_record=True)
    before = say_begin(Settings(window_start=now.previous().id), from_record=True)
    assert "where the record begins; WINDOWS_FROM sets another window" in before


def test_a_child_that_ends_is_told_with_its_log(tmp_path: Path, port: int) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    environment = {"PATH": os.defpath, "DAGSTER_HOME": str(tmp_path / "nothing")}
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "webserver.log").write_text("of the process before\n")
    told = pytest.raises(PermanentError, match=r"ended with code 1; read .*log, which ends:\n(?!of the process)")
    with told, Services(home, port, environment) as services:
        services.wait_until_ready()


def test_the_end_of_a_log_is_of_this_start_and_without_colours(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("of the process before\n")
    for printed, told in (("", f"it has written nothing to {log} yet"), ("\x1b[32mnow\x1b[0m", "which ends:\nnow")):
        child = Child("child", ["-c", f"print({printed!r}, end='')"], tmp_path, dict(os.environ), log)
        child.start()
        child.end(time.monotonic() + 30)
        assert child.end_of_log().endswith(told)


@pytest.fixture
def up(
    tmp_path: Path, database: Database, port: int, gateway_port: int, tiny_base: Path
) -> Iterator[subprocess.Popen[str]]:
    """`babylon up` as a person starts it, in the middle of its work."""
    settings = Settings(
        home=tmp_path,
        database_url=database.url,
        dagster_port=port,
        gateway_port=gateway_port,
        base_model=str(tiny_base),
    )
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:1")
    environment = {**subprocess_environment(settings, database.dagster_url), **proxy, "no_proxy": "", "NO_PROXY": ""}
    command = [sys.executable, "-m", "babylon_assets", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_and_stops_with_all_it_started(
    up: subprocess.Popen[str], port: int, gateway_port: int, number: signal.Signals
) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as reply:
        assert reply.status == 200
    refuse_a_foreign_page(f"http://127.0.0.1:{port}/graphql")
    wait_until_healthy(gateway_port)
    assert len(children(up.pid)) >= 3
    if number is signal.SIGTERM:
        kill_and_see_it_come_back(up, gateway_port)
    family = descendants(up.pid)
    up.send_signal(number)
    assert up.wait(40) == 0
    wait_until_gone(family)


def refuse_a_foreign_page(url: str) -> None:
    """Dagster's own webserver stands behind the guard: its pages work, a foreign page's requests do not."""
    query = {"query": "{ version }"}
    assert "version" in httpx.post(url, json=query).text
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert httpx.post(url, json=query, headers=headers).status_code in (403, 421)
    assert httpx.get(url, params={"query": "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"}).is_error


def kill_and_see_it_come_back(up: subprocess.Popen[str], gateway_port: int) -> None:
    """The gateway, which is the quickest; what else may die is in tests/scenarios/test_soak.py."""
    gateway = child_of(up.pid, "gateway")
    assert gateway is not None
    os.kill(gateway, signal.SIGKILL)
    assert up.stdout is not None
    told = iter(up.stdout.readline, "")
    assert next(line for line in told if "the gateway was ended by SIGKILL and is started again in 1 s" in line)
    wait_until_healthy(gateway_port)
    assert gateway not in children(up.pid)


def test_a_killed_up_leaves_nothing_that_holds_the_port(up: subprocess.Popen[str], port: int) -> None:
    family = descendants(up.pid)
    assert len(family) >= 2
    up.kill()
    wait_until_gone(family)
    with socket.create_server(("127.0.0.1", port)):
        pass


def wait_until_gone(family: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, family)):
        assert time.monotonic() < deadline, [pid for pid in family if alive(pid)]
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_healthy(gateway_port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway_port}/health") as reply:
                assert reply.status == 200
                return
        except OSError:
            assert time.monotonic() < deadline, "the gateway does not answer"
            time.sleep(0.2)
