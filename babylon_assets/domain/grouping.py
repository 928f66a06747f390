"""Which samples are compared with each other, and what a reward is worth among them.

What the rewards are made of is in `domain.rewards`; what a sample without a usable group becomes, in
`domain.datasets`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

GroupMode = Literal["moment", "window", "agent"]


def group_key(
    window: str, moment_ms: int, moment_seconds: float, mode: GroupMode = "moment", agent_id: str = ""
) -> str:
    """The key of the group that a sample belongs to.

    Args:
        moment_ms: epoch milliseconds of the market that the policy saw.
        moment_seconds: with mode `moment`, times in the same slot of this length are the same moment.
        mode: `moment` compares agents at the same moment of a window, `window` all of it, `agent` an agent
            with itself.
    """
    if mode == "window":
        return window
    if mode == "agent":
        return f"{window}/{agent_id}"
    return f"{window}/{int(moment_ms // (1000 * moment_seconds))}"


#: Rewards that differ by less than this, or by less than this share of the largest of them, differ by rounding only:
#: 0.3 and 0.1 + 0.2 do, and so do 1e16 and its neighbour.
SMALLEST_RANGE, ROUNDING = 1e-9, 4 * float(np.finfo(np.float64).eps)


def measure_range(best: Any, worst: Any) -> Any:
    """How far apart the best and the worst reward of a group are, as numbers or arrays; 0 for a rounding error."""
    span = np.subtract(best, worst)
    rounding = np.maximum(SMALLEST_RANGE, ROUNDING * np.maximum(np.abs(best), np.abs(worst)))
    return np.where(span < rounding, 0.0, span)


class GroupComparison(NamedTuple):
    """Of each row: its advantage, its group's reward range (as of `measure_range`) and size, its rank from 0 for the
    best; of equal rewards the earlier row ranks first."""

    advantage: np.ndarray[Any, Any]
    reward_range: np.ndarray[Any, Any]
    size: np.ndarray[Any, Any]
    rank: np.ndarray[Any, Any]


def compared(groups: Sequence[Hashable], rewards: Sequence[float]) -> GroupComparison:
    """Compare finite rewards within their groups. The advantage is the reward less the mean of its group.

    It is not divided by the group's reward range (Liu et al. 2025, "Understanding R1-Zero-like training"): once most
    answers at a decision point agree, what is left of the range is noise, and dividing by it would train on noise at
    full weight.
    """
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    reward = np.array(rewards, dtype=np.float64)
    size = np.bincount(codes, minlength=len(numbers))
    mean = np.bincount(codes, weights=reward, minlength=len(numbers)) / np.maximum(size, 1)
    order = np.lexsort((-reward, codes))
    starts = np.cumsum(size) - size
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, size)
    best, worst = reward[order[starts]], reward[order[starts + size - 1]]
    return GroupComparison(reward - mean[codes], measure_range(best, worst)[codes], size[codes], rank)
