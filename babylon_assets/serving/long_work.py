"""Work that would hold up the event loop, on threads beside it, each key's in turn.

Python's lock is let go of some thousand times a second, and tokenizers work without it: the loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
#: What takes less is done at once: a thread costs a tenth of it.
AT_ONCE_MICROSECONDS = 1_000
#: What takes more waits for others that do, and holds up nobody who asks for less.
LONG_MICROSECONDS = 50_000


class LongWork:
    """Does work for keys: one piece of a key at a time, so that one key does not hold up another's.

    A piece that was begun keeps the key's turn to its end, also where whoever asked for it has gone.
    """

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(2, thread_name_prefix="short-work")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-work")
        self._turns: defaultdict[tuple[str, bool], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def do(self, key: str, microseconds: float, work: Callable[[], T]) -> T:
        """The result of some work.

        Args:
            microseconds: about how long it takes.
        """
        if microseconds <= AT_ONCE_MICROSECONDS:
            return work()
        is_long, loop = microseconds > LONG_MICROSECONDS, asyncio.get_running_loop()
        turn = self._turns[key, is_long]
        await turn.acquire()
        future = (self._long if is_long else self._short).submit(work)
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(turn.release))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Begin nothing more."""
        self._short.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)
