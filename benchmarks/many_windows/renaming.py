"""Which windows, policies and ids a copy has in place of those that were played.

The played windows are a cycle: a home of many windows is that cycle again and again, each under earlier hours than the
next, and its chain goes on from the last checkpoint of the cycle before.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from urllib.parse import quote

from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.checkpoints import Checkpoint

#: Stands in a name that was replaced, so that no later replacement finds it.
_DONE = "\x02"


@dataclass(frozen=True, slots=True)
class Cycle:
    """What was played: its windows oldest first, its chain with the root, the ids of datasets and of Dagster runs."""

    windows: Sequence[str]
    chain: Sequence[Checkpoint]
    datasets: Sequence[str]
    runs: Sequence[str] = ()

    @property
    def root(self) -> Checkpoint:
        return self.chain[0]

    @property
    def head(self) -> Checkpoint:
        return next(row for row in reversed(self.chain) if row.rejected is None)

    @property
    def steps(self) -> int:
        return self.chain[-1].step


@dataclass(frozen=True)
class Copy:
    """The copy number `place` of `count`, the oldest first; the last keeps the hours of the cycle."""

    cycle: Cycle
    place: int
    count: int

    @property
    def earlier(self) -> timedelta:
        return timedelta(hours=len(self.cycle.windows) * (self.count - 1 - self.place))

    @property
    def more_steps(self) -> int:
        return self.cycle.steps * self.place

    def rename(self, text: str) -> str:
        """The text with the copy's windows, policies and ids."""
        for name, new in self._names.items():
            text = text.replace(name, f"{new[:1]}{_DONE}{new[1:]}")
        return text.replace(_DONE, "")

    @cached_property
    def _names(self) -> Mapping[str, str]:
        cycle = self.cycle
        names: dict[str, str] = {}
        for window in cycle.windows:
            moved = HOURLY.of(HOURLY.parse(window).start - self.earlier).id
            names |= {window: moved, quote(window): quote(moved)}
        for checkpoint in reversed(cycle.chain):
            policy = policy_name(checkpoint.chain, checkpoint.step)
            names[policy] = policy_name(checkpoint.chain, self._step(checkpoint))
            names[checkpoint.id] = self._checkpoint(checkpoint)
        names |= {name: _hash(name, self.place) for name in cycle.datasets}
        return names | {name: str(uuid.uuid5(uuid.UUID(name), str(self.place))) for name in cycle.runs}

    def _step(self, checkpoint: Checkpoint) -> int:
        """The step of a checkpoint; the root is the head of the copy before."""
        if checkpoint.step == 0 and self.place > 0:
            return self.cycle.head.step + self.more_steps - self.cycle.steps
        return checkpoint.step + self.more_steps

    def _checkpoint(self, checkpoint: Checkpoint) -> str:
        if checkpoint.step == 0:
            return checkpoint.id if self.place == 0 else _hash(self.cycle.head.id, self.place - 1)
        return _hash(checkpoint.id, self.place)


def _hash(name: str, place: int) -> str:
    return sha256(f"{name}/{place}".encode()).hexdigest()[: len(name)]
