"""How profit becomes worth: what a stake counts for, and the states that a worth may be in."""

from __future__ import annotations

from math import isfinite
from typing import Literal, NamedTuple

State = Literal["final", "pending", "no_trade", "invalid", "unknown"]

#: The game's own smallest trade, in dollars. What a smaller stake earns counts as if it had been this one.
LEAST_STAKE = 1.0


class Valued(NamedTuple):
    """What an order turned out to be worth, with the prices per share or unit that this was computed from."""

    worth: float | None
    state: State
    entry: float | None = None
    exit: float | None = None

    @classmethod
    def final(cls, worth: float, entry: float | None = None, exit_price: float | None = None) -> Valued:
        """A worth that is known, cut off at -1 and 1; numbers that are too large to be counted with say nothing."""
        if not all(isfinite(number) for number in (worth, entry or 0.0, exit_price or 0.0)):
            return UNKNOWN
        return cls(max(-1.0, min(1.0, worth)), "final", entry, exit_price)


UNKNOWN = Valued(None, "unknown")


def is_stake(amount: float) -> bool:
    """Whether an amount can be staked: a finite one above 0."""
    return isfinite(amount) and amount > 0


def weight_stake(amount: float) -> float:
    """What a stake counts for: 1 from `LEAST_STAKE` on, and its share of that below."""
    return min(1.0, amount / LEAST_STAKE)
