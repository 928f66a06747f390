"""The gateway as a child process: started on a free port, waited for, and stopped with whoever started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from types import TracebackType

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BabylonError, PermanentError, TransientError

#: The first one imports torch and may have a base model to make, which takes about a minute.
READY_SECONDS = 300
GRACE_SECONDS = 5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: prctl's "send me this signal when my parent dies": a killed parent leaves nobody behind.
_PARENT_DEATH_SIGNAL = 1
_LIBC = ctypes.CDLL(None)


class GatewayProcess:
    """`babylon serve` on a free port of loopback; a context manager that stops it on the way out.

    The port is bound here and handed down, so that nobody can take it in between.

    Args:
        environment: of the child, which reads its settings from it.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self.log = settings.home / "logs" / "gateway.log"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GatewayProcess:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._socket.fileno()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "babylon_assets", "serve", "--fd", str(descriptor)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                process_group=0,
                # One system call between fork and exec, which takes no lock: harmless whatever threads there are.
                preexec_fn=lambda: _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM),  # noqa: PLW1509
            )
        self._socket.close()
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it.

        Raises:
            TransientError: it had ended by itself, which is why what was done with it failed.
        """
        code = self._end()
        if code and isinstance(error, BabylonError):
            how = f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
            raise TransientError(f"the gateway {how}; {self._end_of_log()}") from error

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PermanentError(f"the gateway does not answer at {self.url}; {self._end_of_log()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with _DIRECT.open(f"http://127.0.0.1:{self.port}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _end_of_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        return f"read {self.log}, which ends:\n" + "\n".join(lines)

    def _end(self) -> int:
        """End it; with its exit code where it ended by itself, else 0."""
        assert self._process is not None
        code = self._process.poll()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return code or max(0, self._process.wait())
