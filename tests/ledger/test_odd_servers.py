"""Servers that speak TLS, or that are set otherwise than PostgreSQL comes: the same values are read and written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from babylon_assets.cli.doctor import diagnose
from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.addresses import Address, parse_address
from babylon_assets.ledger.database import open_database
from babylon_assets.ledger.sessions import explained
from babylon_assets.orchestration.runtime import open_instance
from babylon_assets.orchestration.runtime.qualified_names import qualified_url
from tests.servers import Server

#: As no server comes; each changes what a value looks like as text, or what a transaction sees.
ODD = {
    "timezone": "'America/New_York'",
    "datestyle": "'German, DMY'",
    "intervalstyle": "'sql_standard'",
    "bytea_output": "'escape'",
    "extra_float_digits": "-8",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "'serializable'",
}
IN_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def make_odd(server: Server, database: str) -> None:
    """Set what sessions of a database begin with."""
    for name, value in ODD.items():
        server.execute(f"ALTER DATABASE {{}} SET {name} = {value}", database)


def ask_dagster(url: str, asked: str) -> tuple[Any, ...]:
    """What a session of Dagster's storage answers."""
    address = qualified_url(parse_address(url, "DAGSTER_DATABASE_URL").url("postgresql+psycopg2"))
    engine = create_engine(address, poolclass=NullPool)
    with engine.connect() as conn:
        return tuple(conn.execute(text(asked)).one())


def make_certificate(folder: Path, name: str) -> Path:
    """A certificate for `localhost` that vouches for itself, with its key beside it."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *files], check=True, capture_output=True)
    return certificate


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The certificate of the server, and another one."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl is installed")
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificate(folder, "server"), make_certificate(folder, "other")


@pytest.fixture(scope="module")
def encrypted(system_postgres: Address, roots: tuple[Path, Path]) -> Iterator[Address]:
    """The system's server with TLS, verified by its own certificate; without TLS again at the end."""
    with psycopg.connect(system_postgres.conninfo(), autocommit=True) as conn:
        row = conn.execute("SHOW data_directory").fetchone()
        assert row is not None
        data, owner = Path(row[0]), Path(row[0]).stat()
        for suffix in (".crt", ".key"):
            copied = Path(shutil.copy(roots[0].with_suffix(suffix), data / f"server{suffix}"))
            os.chown(copied, owner.st_uid, owner.st_gid)
            copied.chmod(0o600)
        conn.execute("ALTER SYSTEM SET ssl = on")
        conn.execute("CREATE DATABASE encrypted")
        conn.execute("SELECT pg_reload_conf()")
        checked = {"host": "localhost", "hostaddr": "127.0.0.1", "sslmode": "verify-full", "sslrootcert": str(roots[0])}
        yield Address({**system_postgres.at("encrypted").parameters, **checked})
        conn.execute("ALTER SYSTEM RESET ssl")
        conn.execute("SELECT pg_reload_conf()")


def test_our_sessions_dagsters_and_those_of_launched_runs_use_tls(encrypted: Address, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=encrypted.url())
    database = open_database(settings)
    with database.connect() as conn:
        assert conn.execute(IN_TLS).fetchone() == (True,)
    assert ask_dagster(settings.database.url or "", IN_TLS) == (True,)
    launched = subprocess_environment(settings, database.dagster_url)
    for variable in ("DATABASE_URL", "BABYLON_DAGSTER_URL"):
        assert "sslmode=verify-full" in launched[variable] and "sslrootcert=" in launched[variable]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sslrootcert": "other"}, "certificate verify failed"),
        ({"sslrootcert": "/nowhere/root.crt"}, "does not exist"),
        ({"host": "db.example.com"}, "does not match host name"),
        ({"sslmode": "no-verify"}, "invalid sslmode value"),
    ],
)
def test_tls_that_cannot_come_about_is_a_wrong_setting_and_is_not_repeated(
    encrypted: Address, roots: tuple[Path, Path], tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    changes = {name: str(roots[1]) if value == "other" else value for name, value in changes.items()}
    wrong = Address({**encrypted.parameters, **changes}).url()
    with pytest.raises(SettingsError, match=f"{reason}.*correct sslmode and sslrootcert in DATABASE_URL"):
        open_database(Settings(database_url=wrong)).connect()
    settings = Settings(home=tmp_path, database_url=encrypted.url(), dagster_database_url=wrong)
    with pytest.raises(SettingsError, match="sslrootcert in DAGSTER_DATABASE_URL"):
        open_instance(settings, open_database(settings))


def test_a_server_without_tls_is_a_wrong_setting_where_tls_is_asked_for() -> None:
    refused = psycopg.OperationalError("server does not support SSL, but SSL was required")
    assert isinstance(explained(Address({"dbname": "game"}), refused), SettingsError)


def test_a_message_that_quotes_the_password_is_shown_without_it() -> None:
    quoted = psycopg.OperationalError('connection to server at "db" failed: no parameter in "hunter2"')
    assert "hunter2" not in str(explained(Address({"dbname": "game", "password": "hunter2"}), quoted))


def test_sessions_begin_alike_whatever_the_database_is_set_to(server: Server) -> None:
    odd = server.create()
    make_odd(server, odd)
    names = [*ODD, "search_path"]
    asked = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    with psycopg.connect(server.address.at(odd).conninfo()) as conn:
        assert conn.execute("SHOW timezone").fetchone() == ("America/New_York",)
    with server.database(odd).connect() as conn:
        ours = conn.execute(asked.encode()).fetchone()
    assert ours == ("UTC", "ISO, MDY", "postgres", "hex", "1", "on", "read committed", "pg_catalog")
    assert ask_dagster(server.address.at(odd).url(), asked) == ours
    server.drop(odd)


def test_a_role_that_is_set_to_read_only_is_named_with_what_to_run(server: Server, tmp_path: Path) -> None:
    name = server.create()
    server.execute("ALTER DATABASE {} SET default_transaction_read_only = on", name)
    settings = Settings(home=tmp_path, database_url=server.address.at(name).url())
    [finding] = [finding for finding in diagnose(settings) if finding.name in ("read only", "standby")]
    assert "default_transaction_read_only" in finding.found
    alter = finding.remedy.removeprefix("run: ")
    server.execute(alter)
    assert not [finding for finding in diagnose(settings) if finding.name == "read only"]
    server.execute(alter.replace("SET default", "RESET default").replace(" = off", ""))
    server.drop(name)
