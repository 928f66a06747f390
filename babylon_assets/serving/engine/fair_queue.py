"""Who waits for a place in the engine, and who gets the next one: the key that has the fewest.

A key whose own answers are few is not held up by another's, however many and long these are: beside the places for all
there are some for each key. How long it waits is bounded in steps of the engine, by what the key itself asks for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
#: Seconds that whoever comes new to `Turns` has before those that are there already.
HEAD_START = 0.05
#: One of so many places is kept for each key, beside those for all.
KEPT_SHARE = 8


class FairQueue(Generic[T]):
    """Entries that wait, and how many of each key have a place.

    Args:
        width: places for all keys together.
        length: entries that may wait.
        has_left: whether an entry is not waited for any more.
    """

    def __init__(self, width: int, length: int, has_left: Callable[[T], bool]) -> None:
        self._width, self._length, self._has_left = width, length, has_left
        self._kept = max(1, width // KEPT_SHARE)
        self._waiting: dict[str, deque[T]] = {}  # whose turn was longest ago comes first
        self._placed: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many entries wait."""
        return sum(map(len, self._waiting.values()))

    def put(self, key: str, entries: Sequence[T]) -> bool:
        """Let entries wait; False where there is no room for them.

        Where there is none, a key that stays within its own share of the queue is taken in all the same.
        """
        if len(self) + len(entries) > self._length:
            self._forget_those_who_left()
        free = max(0, self._width - self._placed.total() - len(self))
        own = self._waiting.get(key, ())
        share = self._length // (len(self._waiting) + (not own))
        if len(self) + len(entries) > self._length + free and (
            len(own) + len(entries) > share or not set(self._waiting) - {key}
        ):
            return False
        self._waiting.setdefault(key, deque()).extend(entries)
        return True

    def take(self, may_begin: Callable[[T], bool]) -> tuple[str, T] | None:
        """The entry that gets a place now, with its key; None while nobody may have one.

        Args:
            may_begin: whether there is room for an entry, beside the place; a key waits with its first one.
        """
        for key, queue in list(self._waiting.items()):
            while queue and self._has_left(queue[0]):
                queue.popleft()
            if not queue:
                del self._waiting[key]
        ready = [key for key, queue in self._waiting.items() if may_begin(queue[0])]
        if not ready:
            return None
        key = min(ready, key=self._placed.__getitem__)
        total = self._placed.total()
        if total >= self._width and (self._placed[key] >= self._kept or total >= 2 * self._width):
            return None
        queue = self._waiting.pop(key)
        entry = queue.popleft()
        if queue:
            self._waiting[key] = queue
        self._placed[key] += 1
        return key, entry

    def leave(self, key: str) -> None:
        """Give back a place."""
        self._placed[key] -= 1
        if not self._placed[key]:
            del self._placed[key]

    def _forget_those_who_left(self) -> None:
        for key, queue in list(self._waiting.items()):
            still = deque(entry for entry in queue if not self._has_left(entry))
            if still:
                self._waiting[key] = still
            else:
                del self._waiting[key]


class Turns(Generic[K]):
    """Whose turn it is, of those that want one: each has the same time, whatever one turn of it takes."""

    def __init__(self) -> None:
        self._had: dict[K, float] = {}

    def next(self, wanting: Collection[K], among: Collection[K] | None = None) -> K:
        """Who has had least of those that want a turn, or `among` some of them.

        Whoever did not want one the last time has a head start, and nothing saved up.
        """
        kept = {key: self._had[key] for key in wanting if key in self._had}
        start = min(kept.values(), default=0.0) - HEAD_START
        self._had = {key: kept.get(key, start) for key in wanting}
        return min(among or self._had, key=self._had.__getitem__)

    def spend(self, key: K, seconds: float) -> None:
        """Count what a turn took."""
        self._had[key] += seconds


class KeyTurns(Generic[K]):
    """Whose turn it is, of batches with answers of several keys: keys have the same time, and so do a key's batches."""

    def __init__(self) -> None:
        self._answers: dict[K, Counter[str]] = {}
        self._batches, self._keys = Turns[K](), Turns[str]()

    def enter(self, batch: K, key: str) -> None:
        """Count an answer of a key that joins a batch."""
        self._answers.setdefault(batch, Counter())[key] += 1

    def leave(self, batch: K, key: str) -> None:
        """Count it no more."""
        self._answers[batch] -= Counter({key: 1})
        if not self._answers[batch]:
            del self._answers[batch]

    def next(self, wanting: Collection[K]) -> K:
        """Of the key that has had least time, the batch that has had least."""
        keys = {batch: self._of(batch) for batch in wanting}
        key = self._keys.next(list(dict.fromkeys(key for batch in wanting for key in keys[batch])))
        return self._batches.next(wanting, [batch for batch in wanting if key in keys[batch]])

    def spend(self, batch: K, seconds: float) -> None:
        """Count what a turn took: for the batch, and for its keys by their answers."""
        self._batches.spend(batch, seconds)
        keys = self._of(batch)
        for key, answers in keys.items():
            self._keys.spend(key, seconds * answers / keys.total())

    def _of(self, batch: K) -> Counter[str]:
        """Who has answers in a batch, and how many; nobody where all have left."""
        return self._answers.get(batch) or Counter({"": 1})
