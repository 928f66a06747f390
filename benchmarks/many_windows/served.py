"""A home's Dagster UI with the site beside it, served as `babylon up` serves it, without daemon and gateway."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.runtime import dagster_home
from babylon_assets.orchestration.services import UI, WORKSPACE

_READY_SECONDS = 180


class ServedHome:
    """Asks a home's webserver, each time over a new connection: a server closes those that wait."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(self, path: str) -> float:
        """Milliseconds until a page is there whole."""
        return self._ask("GET", path, None)

    def query(self, body: str) -> float:
        """Milliseconds until a query of GraphQL is answered whole."""
        return self._ask("POST", "/graphql", body.encode())

    def answers(self) -> bool:
        """Whether the server answers yet."""
        try:
            self.get("/server_info")
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return True

    def _ask(self, method: str, path: str, body: bytes | None) -> float:
        started = time.perf_counter()
        self._connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        reply = self._connection.getresponse()
        text = reply.read()
        self._connection.close()
        took = 1000 * (time.perf_counter() - started)
        if reply.status >= 400 or (body is not None and "errors" in _as_json(text)):
            raise SystemExit(f"{method} {path} answers {reply.status}: {text[:300]!r}")
        return took


def _as_json(text: bytes) -> dict[str, Any]:
    return dict(json.loads(text))


@contextmanager
def serve(settings: Settings, database: Database) -> Iterator[ServedHome]:
    """The webserver of a home, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet = settings.replace(automation=False, dagster_port=port)
    command = [sys.executable, "-m", UI, "-h", "127.0.0.1", "-p", str(port), "-w", str(WORKSPACE)]
    environment = {**subprocess_environment(quiet, database.dagster_url), "PYTHONPATH": str(Path(__file__).parents[2])}
    logs = settings.home / "webserver.log"
    with logs.open("wb") as log:
        child = subprocess.Popen(command, env=environment, cwd=dagster_home(quiet), stdout=log, stderr=log)
    try:
        home, deadline = ServedHome(port), time.monotonic() + _READY_SECONDS
        while not home.answers():
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the UI of {settings.home} does not answer; see {logs}")
            time.sleep(0.5)
        yield home
    finally:
        child.terminate()
        child.wait(30)
