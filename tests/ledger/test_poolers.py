"""A real PgBouncer before a real server: sessions that stay are used, transactions that are pooled are refused."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from babylon_assets.cli.doctor import diagnose
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.database import Database, chain_lock, open_database
from babylon_assets.orchestration.runtime import open_instance
from tests.servers import Server, _free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer is installed; type: apt-get install pgbouncer")


@pytest.fixture
def pooled(server: Server, database: Database) -> Iterator[Callable[..., Address]]:
    """Start a PgBouncer before the server, in a mode and with more lines for its file; gives the address behind it."""
    folder, running = Path(tempfile.mkdtemp(prefix="babylon-pooler-")), []
    folder.chmod(0o755)
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def start(mode: str, *lines: str) -> Address:
        port, target = _free_port(), server.address.parameters
        place = f"host={target['host']} port={target['port']} user={target['user']}"
        settings = ["[databases]", f"* = {place}", "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}"]
        settings += ["unix_socket_dir =", "auth_type = any", f"pool_mode = {mode}", *lines]
        file = folder / f"{port}.ini"
        file.write_text("\n".join(settings))
        user = {"user": server_account(target["host"])} if nobody else {}
        running.append(subprocess.Popen([PROGRAM or "", "-q", str(file)], **user))  # type: ignore[call-overload]
        name = database.place.rpartition("/")[2]
        address = Address({"host": "127.0.0.1", "port": str(port), "user": "postgres", "dbname": name})
        wait_for(address)
        return address

    yield start
    for process in running:
        process.kill()
        process.wait()
    shutil.rmtree(folder)


def server_account(socket_folder: str) -> int:
    """Only the server's account may reach its socket."""
    return Path(socket_folder).stat().st_uid


def wait_for(address: Address) -> None:
    for _ in range(200):
        try:
            psycopg.connect(address.conninfo()).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError("the pooler does not answer")


def opened(address: Address, **more: str) -> Database:
    return open_database(Settings(database_url=address.url(), **more))


DROPPED = "ignore_startup_parameters = options"


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("lines", [(DROPPED,), (DROPPED, "server_round_robin = 1", "min_pool_size = 3")])
def test_pooled_transactions_are_refused_with_what_to_do(
    pooled: Callable[..., Address], mode: str, lines: tuple[str, ...]
) -> None:
    refused = pytest.raises(SettingsError, match=r"pooler.*set DIRECT_DATABASE_URL to the server's own address")
    with refused, chain_lock(opened(pooled(mode, *lines)), "c"):
        pass


def test_a_pooler_that_refuses_our_options_is_a_wrong_setting(pooled: Callable[..., Address]) -> None:
    with pytest.raises(SettingsError, match="DIRECT_DATABASE_URL"):
        opened(pooled("transaction", "ignore_startup_parameters = extra_float_digits")).connect()


def test_a_pooler_that_drops_what_a_session_begins_with_is_refused(pooled: Callable[..., Address]) -> None:
    with pytest.raises(SettingsError, match=r"drops the options of a session.*DIRECT_DATABASE_URL"):
        opened(pooled("session", DROPPED)).connect()


@pytest.mark.parametrize("variable", ["LEDGER_DATABASE_URL", "DAGSTER_DATABASE_URL"])
def test_a_pooler_before_our_tables_or_dagsters_is_refused_by_its_setting(
    pooled: Callable[..., Address], database: Database, tmp_path: Path, variable: str
) -> None:
    urls = {variable.lower(): pooled("transaction", DROPPED).url()}
    settings = Settings(home=tmp_path, database_url=database.url, **urls)
    with pytest.raises(SettingsError, match=f"pooler in transaction mode.*set {variable} to the server's own address"):
        opened_now = open_database(settings)
        opened_now.connect()
        open_instance(settings, opened_now)
    found = [one for one in diagnose(settings) if variable in one.remedy]
    assert [one.found for one in found] == ["not as it should be"]


def test_the_direct_address_is_used_beside_a_pooled_one(pooled: Callable[..., Address], database: Database) -> None:
    address = pooled("transaction", DROPPED)
    flagged = Address({**address.parameters}).url() + "&pgbouncer=true"
    with pytest.raises(SettingsError, match="DIRECT_DATABASE_URL"):
        open_database(Settings(database_url=flagged))
    direct = open_database(Settings(database_url=flagged, direct_database_url=database.url))
    assert direct.place == database.place
    with chain_lock(direct, "c"):
        pass
