"""A thread that works for keys in turn, beside the event loop and the thread that samples.

Whoever waits has the same time as each other, whatever one piece of work takes: what a key has had is remembered until
the others have had as much (start-time fair queueing, Goyal et al. 1996). Work that was cancelled before it began is
left out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_starting = threading.Lock()


class FairThread:
    """Does one piece of work after another.

    Args:
        name: of the thread.
        stack: bytes of its stack; 0: as many as other threads have.
        nice: how far it gives way to other threads, as the system counts it, where that is known of threads.
    """

    def __init__(self, name: str, stack: int = 0, nice: int = 0) -> None:
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        #: Seconds of each key that waits, or has had more than the one whose turn it is.
        self._had: dict[str, float] = {}
        self._least = 0.0
        self._wake, self._nice = threading.Condition(), nice
        with _starting:
            usual = threading.stack_size(stack)
            threading.Thread(target=self._run, name=name, daemon=True).start()
            threading.stack_size(usual)

    def submit(self, key: str, work: Callable[[], T]) -> Future[T]:
        """Let some work wait for its turn."""
        future: Future[T] = Future()
        with self._wake:
            if key not in self._waiting:
                self._had[key] = max(self._had.get(key, 0.0), self._least)
            still = [entry for entry in self._waiting.get(key, ()) if not entry[0].cancelled()]
            self._waiting[key] = deque([*still, (future, work)])
            self._wake.notify()
        return future

    def _run(self) -> None:
        if self._nice and sys.platform == "linux":  # elsewhere the number would be that of some process
            with suppress(OSError):  # a service may be kept from it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while True:
            with self._wake:
                while not self._waiting:
                    self._wake.wait()
                key, future, work = self._take()
            if not future.set_running_or_notify_cancel():
                continue
            started, result = time.perf_counter(), None
            try:
                result = work()
            except BaseException as error:  # a panic of a library as well: whoever waits is told, and others go on
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
            else:
                future.set_result(result)
            with self._wake:
                self._had[key] += time.perf_counter() - started
                if not self._waiting:  # nobody waited for what it had
                    self._least = max(self._had.values())
            del future, work, result

    def _take(self) -> tuple[str, Future[Any], Callable[[], Any]]:
        """Work of the key that has had least."""
        key = min(self._waiting, key=self._had.__getitem__)
        self._least = self._had[key]
        self._had = {other: had for other, had in self._had.items() if other in self._waiting or had > self._least}
        queue = self._waiting[key]
        future, work = queue.popleft()
        if not queue:
            del self._waiting[key]
        return key, future, work
