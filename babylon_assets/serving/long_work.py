"""Work that would hold up the event loop, on threads beside it, each key's in turn.

Python's lock is let go of some thousand times a second, and tokenizers work without it: the loop goes on meanwhile.
What waits for the database has threads of its own: a slow ledger holds up no text.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
#: What takes less is done at once: a thread costs a tenth of it.
AT_ONCE_MICROSECONDS = 1_000
#: What takes more waits for others that do, and holds up nobody who asks for less.
LONG_MICROSECONDS = 50_000
#: Keys that may wait for the database at the same time.
LEDGER_THREADS = 8


class LongWork:
    """Does work for keys: one piece of a key at a time, so that one key does not hold up another's."""

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(2, thread_name_prefix="short-work")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-work")
        self._ledger = ThreadPoolExecutor(LEDGER_THREADS, thread_name_prefix="ledger-work")
        self._turns: defaultdict[tuple[str, ThreadPoolExecutor], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def do(self, key: str, microseconds: float, work: Callable[[], T]) -> T:
        """The result of some work.

        Args:
            microseconds: about how long it takes.
        """
        if microseconds <= AT_ONCE_MICROSECONDS:
            return work()
        return await self._in_turn(key, self._long if microseconds > LONG_MICROSECONDS else self._short, work)

    async def ask_ledger(self, key: str, work: Callable[[], T]) -> T:
        """The result of work that waits for the database, however long that takes to answer."""
        return await self._in_turn(key, self._ledger, work)

    async def _in_turn(self, key: str, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """A turn ends with its thread's work: who asks and leaves has no second thread meanwhile."""
        turn, loop = self._turns[key, threads], asyncio.get_running_loop()

        def end(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(turn.release)

        await turn.acquire()
        doing = threads.submit(work)
        doing.add_done_callback(end)
        return await asyncio.wrap_future(doing)

    def close(self) -> None:
        """Begin nothing more."""
        for threads in (self._short, self._long, self._ledger):
            threads.shutdown(wait=False, cancel_futures=True)
