"""Grammars are tried in a process of their own, which may end or be ended by one; the next has another process."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from babylon_assets.serving.engine import grammar_trial
from babylon_assets.serving.engine.schema_bounds import UnboundedSchemaError

#: Grammars whose trials are remembered: a client asks with the same schema again and again.
KEPT = 1024
#: Seconds that a process may take to end that says nothing any more.
_END_SECONDS = 5


class GrammarTrials:
    """Tries grammars one after the other, and those that passed not again. Used by one thread."""

    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: weakref.finalize[..., GrammarTrials] | None = None

    def try_out(self, grammar: str, limits: Mapping[str, Any]) -> None:
        """Make a grammar where it can do no harm.

        Raises:
            UnboundedSchemaError: it has an error, takes too long, or ends the process.
        """
        digest = hashlib.sha256(grammar.encode()).digest()
        if digest in self._passed:
            self._passed.move_to_end(digest)
            return
        self._try(grammar, limits)
        self._passed[digest] = None
        if len(self._passed) > KEPT:
            self._passed.popitem(last=False)

    def _try(self, grammar: str, limits: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._forget(self._process)  # somebody else ended it
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        reply = b""
        with suppress(BrokenPipeError):  # then it has ended, and there is no reply
            process.stdin.write(json.dumps([grammar, limits]).encode() + b"\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise UnboundedSchemaError(self._forget(process))
        if error := json.loads(reply):
            raise UnboundedSchemaError(error.partition("\n")[0][:300])

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", grammar_trial.__file__, str(grammar_trial.LONGEST)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null)
        self._process, self._ending = process, weakref.finalize(self, _end, process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> str:
        """Why a process ended."""
        assert self._ending is not None
        self._process = None
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        self._ending()
        if process.returncode == -signal.SIGPROF:
            return f"to make a grammar of it takes more than {grammar_trial.LONGEST:g} seconds"
        return "llguidance ends when it reads it"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
