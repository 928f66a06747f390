"""The long-lived processes, Dagster's webserver and daemon, the gateway and the simulated game: children that live and
die together, beside the embedded PostgreSQL.

One that dies is brought back, PostgreSQL first; one that does not stay up ends all of them. They start with the default
handling of SIGINT and in process groups of their own, so that Ctrl-C reaches them once, through this process. What they
serve is, unless told otherwise, the code location in `babylon_assets.definitions`.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from babylon_assets.domain.errors import PermanentError
from babylon_assets.orchestration.children import Child

UI = "babylon_assets.orchestration.ui"
WORKSPACE = Path(__file__).with_name("workspace.yaml")
#: A slow machine is no failure: what waits says so, and a child that died ends it at once.
READY_SECONDS = 600
LOOK_SECONDS = 1.0
#: Children have so long to end by themselves; whatever they were doing is taken up again.
GRACE_SECONDS = 5
SAY_EVERY_SECONDS = 5.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SupervisedDatabase(Protocol):
    """What the children need before anything else."""

    def revive(self) -> bool:
        """Start it again where it is ours and gone; True when it was."""

    def answers(self) -> bool:
        """Whether it can be connected to."""


class Services:
    """Webserver, daemon, gateway and simulated game; a context manager that stops all, and whatever they started, on
    the way out.

    Args:
        home: the Dagster instance's folder.
        port: port of the UI on 127.0.0.1.
        environment: of the children.
        gateway_port: port of the gateway, which says itself where it listens; None: none is started.
        simulated_hours: how many hours back the simulated game begins; None: none is played.
        workspace: the code locations; ours, unless others are to be served beside it.
    """

    def __init__(
        self,
        home: Path,
        port: int,
        environment: Mapping[str, str],
        gateway_port: int | None = None,
        simulated_hours: int | None = None,
        workspace: Path = WORKSPACE,
    ) -> None:
        self._ports = {"DAGSTER_PORT": port, **({} if gateway_port is None else {"GATEWAY_PORT": gateway_port})}
        self._stop = threading.Event()
        self._handlers: dict[signal.Signals, signal.Handlers | object] = {}
        self._waits_for_database = False
        self.logs = home.parent / "logs"
        self.url = f"http://127.0.0.1:{port}"
        commands = {
            "webserver": ["-m", UI, "-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)],
            "daemon": ["-m", "dagster._daemon", "run", "-w", str(workspace)],
        }
        if gateway_port is not None:
            commands["gateway"] = ["-m", "babylon_assets", "serve"]
        if simulated_hours is not None:
            commands["simulation"] = ["-m", "babylon_assets", "simulate", "--hours", str(simulated_hours)]
        self._children = [
            Child(name, command, home, environment, self.logs / f"{name}.log") for name, command in commands.items()
        ]

    def __enter__(self) -> Services:
        refuse_taken_ports(self._ports)
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, lambda *_: self._stop.set())
        for child in self._children:
            child.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.send(signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self._children:
            child.end(deadline)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def stop_requested(self) -> bool:
        """Whether SIGINT or SIGTERM came; who does not `wait` looks here."""
        return self._stop.is_set()

    def wait_until_ready(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Return when the UI answers, or a signal asked to stop.

        Args:
            say: is told every few seconds what is waited for.

        Raises:
            PermanentError: a process ended, or the UI did not answer in ten minutes; the log's end is in the message.
        """
        began = said_at = time.monotonic()
        deadline = began + READY_SECONDS
        while not self._stop.is_set() and not self._answers():
            if time.monotonic() - said_at > SAY_EVERY_SECONDS:
                said_at = time.monotonic()
                say(f"waiting for the UI, {said_at - began:.0f} s so far; it loads the graph first")
            for child in self._children:
                child.refuse_dead()
            if time.monotonic() > deadline:
                raise PermanentError(f"the UI does not answer at {self.url}; {self._children[0].end_of_log()}")
            self._stop.wait(0.3)

    def wait(self, database: SupervisedDatabase, say: Callable[[str], None]) -> None:
        """Keep everything up; return when SIGINT or SIGTERM asked to stop.

        Args:
            say: is told of everything that died.

        Raises:
            PermanentError: one of the processes does not stay up; the log's end is in the message.
            DatabaseUnavailable: the embedded PostgreSQL does not come back.
        """
        while not self._stop.wait(LOOK_SECONDS):
            if database.revive():
                say("PostgreSQL was gone and is started again")
            for child in self._children:
                child.trim_log()
                if death := child.noticed_death():
                    say(death)
            self._start_due(database, say)

    def _start_due(self, database: SupervisedDatabase, say: Callable[[str], None]) -> None:
        """Start the dead whose pause is over, once the database answers: without it they would only die again."""
        due = [child for child in self._children if child.is_due]
        waits = bool(due) and not database.answers()
        if waits and not self._waits_for_database:
            say(f"the {due[0].name} is started again when PostgreSQL answers")
        self._waits_for_database = waits
        for child in due if not waits else []:
            child.start()

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/server_info", timeout=2) as reply:
                return bool(reply.status == 200)
        except urllib.error.HTTPError as refusal:
            return refusal.code == 401  # it asks for a key
        except (urllib.error.URLError, OSError):
            return False


def refuse_taken_ports(ports: Mapping[str, int]) -> None:
    """Refuse ports of 127.0.0.1 on which something listens, by the settings that say them.

    Raises:
        PermanentError: naming the port and its setting.
    """
    for setting, port in ports.items():
        _refuse_taken(port, setting)


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
