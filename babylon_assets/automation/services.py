"""The long-lived processes, Dagster's webserver and daemon and the gateway, as children that live and die together.

They start with the default handling of SIGINT and in process groups of their own, so that Ctrl-C reaches them once,
through this process. What they serve is, unless told otherwise, the code location in `babylon_assets.definitions`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from babylon_assets.core.errors import PermanentError

WORKSPACE = Path(__file__).with_name("workspace.yaml")
READY_SECONDS = 120
#: prctl's "send me this signal when my parent dies": nobody is left behind to hold the port when we are killed.
_PARENT_DEATH_SIGNAL = 1
_LIBC = ctypes.CDLL(None)
GRACE_SECONDS = 20


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold `<home>/up.lock`; the kernel lets go of it when this process ends, however it ends.

    Raises:
        PermanentError: another process of this home holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PermanentError(
                f"`babylon up` already serves {home} as process {lock.read().strip() or '?'}; "
                "stop that one, or set BABYLON_HOME to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Services:
    """Webserver, daemon and gateway; a context manager that stops all, and whatever they started, on the way out.

    Args:
        home: the Dagster instance's folder.
        port: port of the UI on 127.0.0.1.
        environment: of the children.
        gateway_port: port of the gateway, which says itself where it listens; None: none is started.
        workspace: the code locations; ours, unless others are to be served beside it.
    """

    def __init__(
        self,
        home: Path,
        port: int,
        environment: Mapping[str, str],
        gateway_port: int | None = None,
        workspace: Path = WORKSPACE,
    ) -> None:
        self._home, self._port, self._environment = home, port, dict(environment)
        self._gateway_port, self._workspace = gateway_port, workspace
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._handlers: dict[signal.Signals, signal.Handlers | object] = {}
        self.logs = home.parent / "logs"
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Services:
        _refuse_taken(self._port, "DAGSTER_PORT")
        if self._gateway_port is not None:
            _refuse_taken(self._gateway_port, "GATEWAY_PORT")
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, lambda *_: self._stop.set())
        address, workspace = ["-h", "127.0.0.1", "-p", str(self._port)], ["-w", str(self._workspace)]
        self._start("webserver", ["-m", "dagster_webserver", *address, *workspace])
        self._start("daemon", ["-m", "dagster._daemon", "run", *workspace])
        if self._gateway_port is not None:
            self._start("gateway", ["-m", "babylon_assets", "serve"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            _signal_group(child, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
            _signal_group(child, signal.SIGKILL)
            child.wait()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def wait_until_ready(self) -> None:
        """Return when the UI answers, or a signal asked to stop.

        Raises:
            PermanentError: a process ended, or the UI did not answer in two minutes; the log's end is in the message.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not self._stop.is_set() and not self._answers():
            self._refuse_dead()
            if time.monotonic() > deadline:
                raise PermanentError(f"the UI does not answer at {self.url}; {self._end_of_log('webserver')}")
            self._stop.wait(0.3)

    def wait(self) -> None:
        """Return when SIGINT or SIGTERM asked to stop.

        Raises:
            PermanentError: one of the processes ended by itself.
        """
        while not self._stop.wait(1.0):
            self._refuse_dead()

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                # One system call between fork and exec, which takes no lock: harmless whatever threads there are.
                preexec_fn=lambda: _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGINT),  # noqa: PLW1509
            )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _refuse_dead(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None:
                raise PermanentError(f"the {name} ended with code {child.returncode}; {self._end_of_log(name)}")

    def _end_of_log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines()[-8:]
        return f"read {path}, which ends:\n" + "\n".join(lines)


def _refuse_taken(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PermanentError(
                f"port {port} of 127.0.0.1 is taken; stop what listens there or set {setting}, "
                f"such as {setting}={port + 1}"
            ) from None


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the child and everything it started; a group that is gone already is what was wanted."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
