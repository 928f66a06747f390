"""PostgreSQL servers for tests: the embedded one for all of them, and the system's own over TCP with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger import embedded_postgres
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.database import Database, migrate, open_database

SYSTEM_PASSWORD = "p@ss/wörd %1"


class Server:
    """A running server on which each test gets databases of its own, copied from a migrated template."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._made = 0
        self._connection = psycopg.connect(address.conninfo(), autocommit=True)

    def execute(self, statement: str, *names: str) -> None:
        self._connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create(self, template: str = "template0") -> str:
        self._made += 1
        name = f"test_{self._made}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, name: str) -> None:
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", f"{name}_dagster")

    def database(self, name: str) -> Database:
        return open_database(Settings(database_url=self.address.at(name).url()))


def passable_folder(prefix: str) -> Path:
    """A new folder that others may pass, so that the account of root's embedded server can: its data lies inside."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


@pytest.fixture
def passable_home() -> Iterator[Path]:
    """A home folder with an embedded server of its own, both gone at the end of the test."""
    folder = passable_folder("babylon-home-")
    yield folder
    embedded_postgres.stop(folder / "postgres")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The embedded server of this test session, fast and forgetful, stopped at its end."""
    folder = passable_folder("babylon-tests-")
    data = folder / "postgres"
    try:
        running = Server(embedded_postgres.start(data))
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            running.execute("ALTER SYSTEM SET {} = off", setting)
        running.execute("SELECT pg_reload_conf()")
        yield running
    finally:
        embedded_postgres.stop(data)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(server: Server) -> str:
    """URL of the session's embedded server, database `postgres`, as superuser."""
    return server.address.url()


@pytest.fixture(scope="session")
def migrated(server: Server) -> str:
    """Name of a database that holds our schema and nothing else; a template, nobody connects to it."""
    name = server.create()
    migrate(server.database(name))
    return name


@pytest.fixture(scope="session")
def played(server: Server, migrated: str) -> str:
    """Name of a template that holds our schema and the game's empty tables."""
    name = server.create(migrated)
    with server.database(name).connect() as conn:
        create_game_tables(conn)
    return name


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    """A database with nothing in it."""
    name = server.create()
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def database(server: Server, migrated: str) -> Iterator[Database]:
    """A fresh database that holds our schema."""
    name = server.create(migrated)
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def game_database(server: Server, played: str) -> Iterator[Database]:
    """A fresh database that holds our schema and the game's empty tables."""
    name = server.create(played)
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `database`; what it leaves uncommitted is rolled back."""
    connection = database.connect()
    yield connection
    connection.close()


@pytest.fixture
def game_conn(game_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `game_database`; what it leaves uncommitted is rolled back."""
    connection = game_database.connect()
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def system_postgres() -> Iterator[Address]:
    """The system's PostgreSQL over TCP on loopback with SCRAM, as its superuser; stopped at the end of the session."""
    with system_server("127.0.0.1") as address:
        yield address


@contextmanager
def system_server(listens: str, network: str | None = None) -> Iterator[Address]:
    """The system's PostgreSQL with SCRAM at an address of this host, which others of a network may reach as well."""
    programs, folder = _system_programs(), Path(tempfile.mkdtemp(prefix="babylon-system-"))
    identity = _server_identity(folder)
    data, port = folder / "data", _free_port()
    password = folder / "password"
    password.write_text(SYSTEM_PASSWORD)
    password.chmod(0o644)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        with (folder / "output").open("a") as output:
            subprocess.run(command, check=True, cwd="/", stdout=output, stderr=output, **identity)

    init = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "-U", "admin", f"--pwfile={password}")
    run("initdb", "-D", str(data), *init)
    if network is not None:
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network} scram-sha-256\n")
    options = f"-p {port} -c listen_addresses={listens} -c unix_socket_directories= -c fsync=off"
    run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(data / "log"), "-o", options)
    try:
        login = {"user": "admin", "password": SYSTEM_PASSWORD, "dbname": "postgres"}
        yield Address({"host": listens, "port": str(port), **login})
    finally:
        run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(data))
        shutil.rmtree(folder)


@contextmanager
def standby_server(primary: Address) -> Iterator[Address]:
    """A hot standby that follows a server of `system_server`: it answers questions and refuses every write."""
    programs, folder = _system_programs(), Path(tempfile.mkdtemp(prefix="babylon-standby-"))
    identity = _server_identity(folder)
    data, port = folder / "data", _free_port()

    def run(program: str, *arguments: str) -> None:
        with (folder / "output").open("a") as output:
            command = [str(programs / program), *arguments]
            subprocess.run(command, check=True, cwd="/", stdout=output, stderr=output, **identity)

    run("pg_basebackup", "-D", str(data), "-R", "-c", "fast", "-d", primary.conninfo())
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(data / "log"), "-o", options)
    try:
        yield Address({**primary.parameters, "port": str(port)})
    finally:
        run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(data))
        shutil.rmtree(folder)


def _system_programs() -> Path:
    """The folder of the newest PostgreSQL that the system has."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if not servers:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql")
    return servers[-1].parent


def _server_identity(folder: Path) -> dict[str, Any]:
    """As whom the server runs: ourselves; for root, the account `postgres`, to whom the folder then belongs."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
