"""As whom the embedded PostgreSQL runs, and where its data lies.

PostgreSQL refuses to run as root. Started by root, the server runs as an account of its own, which nothing else uses.
Whoever holds that account may put links into its folders at any moment, so root never opens, writes or removes
anything there: programs that run as the account do (`ServerAccount`).

The modes of the folders above the data stay as they are. Where the account may not pass them, the data lies below
`APART` and the home holds a link to it; programs that it may not reach are copied there.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import foreign_environment
from babylon_assets.domain.errors import DatabaseUnavailable, MissingDependency, SettingsError

ACCOUNT = "babylon-postgres"
#: What lies outside of the home, because the account may not pass the folders above it.
APART = Path("/var/lib/babylon-postgres")
#: Bytes of a file of the account that are read at most, and seconds that this may take: it may be a pipe, or endless.
READ_BYTES = 65_536
READ_SECONDS = 10
_NO_PROCESS = 2**31 - 1  # above any process id that Linux gives


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """Who touches a server's files. Without an entry of passwd it is this process itself."""

    entry: pwd.struct_passwd | None = None

    @property
    def user_id(self) -> int:
        return os.geteuid() if self.entry is None else self.entry.pw_uid

    def run(self, command: list[str], seconds: float | None = None) -> str:
        """Run a program as the account and return what it wrote, standard error included.

        Output goes to a file: a server that is left running would keep a pipe open.

        Raises:
            MissingDependency: the program is missing.
            SettingsError: the account may not run it.
            DatabaseUnavailable: it failed, or took longer than `seconds`; what it wrote is in the message.
        """
        identity: dict[str, Any] = {}
        if self.entry is not None:
            identity = {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}
            identity["env"] = foreign_environment()
        with tempfile.TemporaryFile() as output:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            try:
                subprocess.run(
                    [_find(command[0]), *command[1:]], check=True, cwd="/", timeout=seconds, **streams, **identity
                )
            except FileNotFoundError:
                raise MissingDependency(f"the program {command[0]} is missing; run as an ordinary user") from None
            except PermissionError as error:
                raise SettingsError(
                    f"cannot run {command[0]} ({error.strerror}); reinstall it with umask 022"
                ) from None
            except subprocess.SubprocessError:
                raise DatabaseUnavailable(f"{Path(command[0]).name} failed: {_written(output)}") from None
            return _written(output)

    def read(self, path: Path) -> str | None:
        """The beginning of a file, at most 64 KB; None where it cannot be read."""
        if self.entry is None and not path.is_file():
            return None
        return self._read_output(["head", "-c", str(READ_BYTES), "--", str(path)])

    def read_end(self, folder: Path, patterns: str, lines: int) -> str | None:
        """The last lines of the two newest files of a folder that patterns of the shell name; None where it fails."""
        files = f'for file in {patterns}; do if [ -f "$file" ]; then echo "$file"; fi; done'
        script = f'cd "$1" && {files} | xargs -r ls -tr | tail -n 2 | xargs -r tail -q -n "$2" | tail -n "$2"'
        return self._read_output(["sh", "-c", script, "sh", str(folder), str(lines)])

    def disown(self, pid_file: Path) -> None:
        """Put a process id that cannot exist into a file that a dead server left.

        After a crash the id in it may belong to a program of the same user, or to a corpse that nobody buries, and
        then PostgreSQL refuses to start. The rest stays: by it PostgreSQL sees whether children still use the data.
        """
        if self.entry is not None:
            script = f'if [ -f "$1" ]; then sed -i "1s/.*/{_NO_PROCESS}/" "$1"; fi'
            self.run(["sh", "-c", script, "sh", str(pid_file)], READ_SECONDS)
        elif pid_file.exists():
            _, _, rest = pid_file.read_text().partition("\n")
            pid_file.write_text(f"{_NO_PROCESS}\n{rest}")

    def may_pass(self, folder: Path) -> bool:
        """Whether the account may use what lies in a folder, whose name it knows."""
        try:
            self.run(["test", "-x", str(folder)])
        except DatabaseUnavailable:
            return False
        return True

    def make_folder(self, folder: Path) -> None:
        """Make a folder that only the account may enter, unless something of that name is there."""
        if self.entry is None:
            folder.mkdir(mode=0o700, exist_ok=True)
        elif not os.path.lexists(folder):
            self.run(["mkdir", "-m", "700", str(folder)])

    def _read_output(self, command: list[str]) -> str | None:
        try:
            return self.run(command, READ_SECONDS)
        except DatabaseUnavailable:
            return None


def account_of(data: Path) -> ServerAccount:
    """As whom the server of a data folder runs: for root, the folder's owner, or, for a new one, our own account.

    Raises:
        SettingsError: the folder is root's, its owner is in no passwd, or our account cannot be made.
    """
    if os.geteuid() != 0:
        return ServerAccount()
    try:
        owner = data.lstat().st_uid
    except FileNotFoundError:
        return ServerAccount(_our_account())
    if owner == 0 and not any(data.iterdir()):
        return ServerAccount(_our_account())
    if owner == 0:
        raise SettingsError(
            f"{data} belongs to root, as whom PostgreSQL does not run; type: chown -R {_our_account().pw_name}: {data}"
        )
    try:
        return ServerAccount(pwd.getpwuid(owner))
    except KeyError:
        raise SettingsError(f"{data} belongs to the user id {owner}, which has no account; make one") from None


def real_folder(data: Path) -> Path:
    """Where a server's data lies: `data`, or where the link leads that stands there.

    Raises:
        SettingsError: we are root, and the link is somebody else's.
    """
    if not data.is_symlink():
        return data
    target = data.readlink()
    if os.geteuid() == 0 and data.lstat().st_uid != 0:
        raise SettingsError(f"{data} is a link that is not root's; remove it, or run babylon as its owner")
    return data.parent / target


def make_data_folder(data: Path, account: ServerAccount) -> Path:
    """Make the folder of a new server, which only its account may enter, and return where it lies.

    Raises:
        SettingsError: it cannot be made there; the message says what to do.
    """
    if account.entry is None:
        data.mkdir(mode=0o700, exist_ok=True)
        return data
    try:
        in_place = data.parent.stat().st_uid == 0 and account.may_pass(data.parent)
        folder = data if in_place else _link_apart(data)
        folder.mkdir(mode=0o700, exist_ok=True)
        _give(folder, account.entry)
    except OSError as error:
        raise SettingsError(f"cannot make {data} ({error.strerror}); set BABYLON_HOME to another folder") from None
    return folder


def _link_apart(data: Path) -> Path:
    """A new folder below `APART`, with a link to it at `data`, where at most an empty folder stands."""
    if data.is_dir():
        data.rmdir()
    folder = Path(tempfile.mkdtemp(prefix=f"{data.parent.name.lstrip('.')}-", dir=_folder_apart()))
    data.symlink_to(folder)
    return folder


def _give(folder: Path, entry: pwd.struct_passwd) -> None:
    """Hand an empty folder of root's to the account: the very one that was looked at."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        owner = os.fstat(handle).st_uid
        if owner == 0 and not os.listdir(handle):  # noqa: PTH208 - of a handle
            os.fchown(handle, entry.pw_uid, entry.pw_gid)
        elif owner != entry.pw_uid:
            raise SettingsError(f"{folder} was changed while it was made; remove it and try again")
    finally:
        os.close(handle)


def refuse_impassable(data: Path, account: ServerAccount) -> None:
    """Refuse a data folder that its account cannot enter.

    Raises:
        SettingsError: saying how to move it.
    """
    if account.entry is not None and not account.may_pass(data):
        place = APART / (data.parent.name.lstrip(".") or data.name)
        raise SettingsError(
            f"the account {account.entry.pw_name} may not pass the folders above {data}; move it: "
            f"mkdir -p {APART} && mv {data} {place} && ln -s {place} {data}"
        )


def reachable(programs: Path, account: ServerAccount) -> Path:
    """A folder of programs that the account may run: this one, or a copy of the installation around it."""
    if account.entry is None or account.may_pass(programs):
        return programs
    installation, server = programs.parent, (programs / "postgres").stat()
    identity = f"{installation}:{server.st_size}:{server.st_mtime_ns}"
    copy = _folder_apart() / f"programs-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(dir=_folder_apart()))
        shutil.copytree(installation, unfinished / "copy", symlinks=True)
        unfinished.chmod(0o755)
        try:
            (unfinished / "copy").rename(copy)
        except OSError:
            if not copy.exists():  # else another process was faster
                raise
        finally:
            shutil.rmtree(unfinished)
    return copy / programs.name


def _our_account() -> pwd.struct_passwd:
    """The account that the embedded server alone uses, made where it is missing."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    reason: object = ""
    for _ in range(2):
        try:
            return pwd.getpwnam(ACCOUNT)
        except KeyError:
            try:
                ServerAccount().run([*command, "--shell", "/usr/sbin/nologin", ACCOUNT])
            except (MissingDependency, DatabaseUnavailable) as error:  # another process may have been faster
                reason = error
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise SettingsError(
            f"cannot make the account {ACCOUNT} for the embedded PostgreSQL: {reason}; make it, run babylon as an "
            "ordinary user, or set DATABASE_URL"
        ) from None


def _folder_apart() -> Path:
    """The folder `APART`, which others may pass and not list."""
    try:
        APART.mkdir(exist_ok=True)
        facts = APART.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != 0:
            raise SettingsError(f"{APART} is not root's; remove it, or set BABYLON_HOME to a folder that all may pass")
        if stat.S_IMODE(facts.st_mode) != 0o711:
            APART.chmod(0o711)
    except OSError as error:
        raise SettingsError(
            f"cannot use {APART} ({error.strerror}); run babylon as an ordinary user, or set BABYLON_HOME to a folder "
            "of root's that all may pass"
        ) from None
    return APART


def _written(output: Any) -> str:
    output.seek(0)
    return str(output.read(READ_BYTES).decode(errors="replace"))


def _find(program: str) -> str:
    """Where a program is; those of the system are found under a service's short PATH too."""
    return shutil.which(program) or shutil.which(program, path=os.defpath) or program
