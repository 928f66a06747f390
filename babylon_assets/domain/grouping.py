"""Which groups a sample may be compared in, by the keys that name them, and what a reward is worth in a group.

A key names the level of its group, and on the last level the baseline itself, so that a dataset needs no ledger to be
trained on again. Which of its groups a sample is compared in is decided in `domain.baselines`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

GroupMode = Literal["moment", "window", "agent"]
Level = Literal["decision_point", "minutes", "class", "running_mean"]
LEVELS: tuple[Level, ...] = ("decision_point", "minutes", "class", "running_mean")
#: What a sample of each level is compared with, in words.
BASELINES: Mapping[Level, str] = {
    "decision_point": "its decision point",
    "minutes": "the same few minutes",
    "class": "its class in the window",
    "running_mean": "the mean of earlier windows",
}
_KIND = "="
_MARKS: Mapping[str, Level] = {"~minutes": "minutes", "~class": "class", "~earlier": "running_mean"}


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


class Ladder(NamedTuple):
    """The groups that a sample may belong to, the narrowest first; None where there is none of a level.

    Attributes:
        needs_company: whether the first group has to hold answers of another trajectory.
    """

    point: str
    minutes: str | None
    agent_class: str | None
    window: str
    kind: str
    needs_company: bool = True

    @property
    def keys(self) -> tuple[str | None, ...]:
        """The groups by level, without the last; then that of all classes, for who is the only one of its class."""
        anyone = None if self.agent_class is None else _key(self.window, "~class", "any", kind=self.kind)
        return self.point, self.minutes, self.agent_class, anyone

    def earlier(self, mean: float) -> str:
        """The group whose baseline is a running mean."""
        return _key(self.window, "~earlier", repr(mean), kind=self.kind)


def build_ladder(
    window: str,
    moment_ms: int,
    *,
    moment_seconds: float,
    mode: GroupMode = "moment",
    agent_id: str = "",
    kind: str = "",
    agent_class: str = "",
    state_seconds: float = 0.0,
) -> Ladder:
    """The groups of a step.

    Args:
        moment_ms, moment_seconds, mode, agent_id: as of `grouping.group_key`; who asks for another mode than `moment`
            says what is compared, and only the running mean stands in for it.
        kind: of the step's action; actions of different kinds are never compared.
        agent_class: of its agent.
        state_seconds: how long the environment's state stays alike; 0: no two moments are.
    """
    point = _key(group_key(window, moment_ms, moment_seconds, mode, agent_id), kind=kind)
    if mode != "moment":
        return Ladder(point, None, None, window, kind, mode != "agent")
    slot = int(moment_ms // (1000 * state_seconds)) if state_seconds > moment_seconds else None
    minutes = None if slot is None else _key(window, "~minutes", str(slot), kind=kind)
    return Ladder(point, minutes, _key(window, "~class", agent_class or "any", kind=kind), window, kind)


def _key(*parts: str, kind: str) -> str:
    """Parts of a key are divided by `/`; a kind is marked, so that it is not taken for one of them."""
    named = [part.replace("/", " ") for part in parts[1:]]
    return "/".join([parts[0], *named, *([f"{_KIND}{kind.replace('/', ' ')}"] if kind else [])])


def window_in(group: str) -> str:
    """The window that the samples of a group belong to, whichever window's dataset carries them over."""
    return group.partition("/")[0]


def level_of(group: str) -> Level:
    """The level that the key of a group is of."""
    parts = group.split("/")
    return _MARKS.get(parts[1], "decision_point") if len(parts) > 2 else "decision_point"


def baseline_in(group: str) -> float | None:
    """The running mean that the key of a group names; None for a group of another level."""
    return float(group.split("/")[2]) if level_of(group) == "running_mean" else None


def kind_in(group: str) -> str:
    """The kind of actions whose answers are in a group, from its key; empty where the environment names none."""
    last = group.rpartition("/")[2]
    return last.removeprefix(_KIND) if last.startswith(_KIND) else ""


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
