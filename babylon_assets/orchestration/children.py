"""One long-lived child process: started in a group of its own, ended with all that it started, and brought back when
it dies by itself. Which children there are, and in which order, is decided in `services`.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from babylon_assets.domain.errors import PermanentError

#: Seconds before each start after a death; a child that dies more often without having been steady is given up.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: A child that lived so long is well: its next death counts as the first.
STEADY_SECONDS = 60.0
#: A log that has grown larger is begun anew; so many bytes of its end are kept beside it, as `<name>.log.1`.
LOG_BYTES = 20 * 2**20
#: prctl's "send me this signal when my parent dies": nobody is left behind to hold the port when we are killed.
_PARENT_DEATH_SIGNAL = 1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_log = logging.getLogger(__name__)
_LIBC = ctypes.CDLL(None)


class Child:
    """A Python process with a log of its own.

    Args:
        name: in messages, and of the log file.
        arguments: of the interpreter.
        home: its working folder.
        log: what it prints is added to this file, of which `trim_log` keeps the end.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], home: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self.name, self.log = name, log
        self._arguments, self._home, self._environment = list(arguments), home, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._log_began = 0
        self._deaths = 0
        self._again_at: float | None = None

    def start(self) -> None:
        """Start it, from the main thread: the kernel ends it when that thread ends."""
        with self.log.open("ab") as log:
            self._log_began = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                # One system call between fork and exec, which takes no lock: harmless whatever threads there are.
                preexec_fn=lambda: _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGINT),  # noqa: PLW1509
            )
        self._started, self._again_at = time.monotonic(), None

    def trim_log(self, most: int = LOG_BYTES) -> None:
        """Begin the log anew where it has become too long; the child goes on writing to the same file, at its end."""
        size = self.log.stat().st_size if self.log.is_file() else 0
        if size <= most:
            return
        try:
            with self.log.open("rb") as log, self.log.with_name(f"{self.log.name}.1").open("wb") as before:
                log.seek(size - most)
                before.write(log.read(most))  # and no more, however much is written meanwhile
        except OSError:  # a full disk is what truncating helps against; the end of the log is lost then
            _log.warning("the end of %s could not be kept", self.log)
        os.truncate(self.log, 0)

    def refuse_dead(self) -> None:
        """For the time before it was ready once, when starting it again would end as the first time.

        Raises:
            PermanentError: it has ended; the end of its log is in the message.
        """
        if self._process is not None and self._process.poll() is not None:
            raise PermanentError(f"the {self.name} ended with code {self._process.returncode}; {self.end_of_log()}")

    def noticed_death(self) -> str | None:
        """In words, that it has died since the last look and is to be started again; what it had started ends with it.

        Raises:
            PermanentError: it died too often, one time after the other.
        """
        if self._process is None or self._again_at is not None or self._process.poll() is None:
            return None
        self.send(signal.SIGKILL)
        how = _ending(self._process.returncode)
        if time.monotonic() - self._started >= STEADY_SECONDS:
            self._deaths = 0
        if self._deaths == len(PAUSES):
            raise PermanentError(
                f"the {self.name} {how}, for the {self._deaths + 1}. time in a row; put right what its log says and "
                f"start again; {self.end_of_log()}"
            )
        pause = PAUSES[self._deaths]
        self._deaths += 1
        self._again_at = time.monotonic() + pause
        return f"the {self.name} {how} and is started again in {pause:.0f} s; its log: {self.log}"

    @property
    def is_due(self) -> bool:
        """Whether it is dead and its pause is over."""
        return self._again_at is not None and time.monotonic() >= self._again_at

    def send(self, number: signal.Signals) -> None:
        """Signal the child and everything it started; a group that is gone already is what was wanted."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def end(self, deadline: float) -> None:
        """Wait for it until then, and kill what is left."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, deadline - time.monotonic()))
        self.send(signal.SIGKILL)
        self._process.wait()

    def end_of_log(self) -> str:
        """Where its log is, and how it ends since this start, without colours."""
        with self.log.open("rb") as log:
            log.seek(min(self._log_began, self.log.stat().st_size))
            written = _COLOURS.sub("", log.read().decode(errors="replace"))
        if not written.strip():
            return f"it has written nothing to {self.log} yet"
        return f"read {self.log}, which ends:\n" + "\n".join(written.splitlines()[-8:])


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
