"""The hierarchy of baselines: what an answer is compared with when few others were given at its decision point.

An answer is compared with answers to actions of its kind, on the first of four levels that has company for it:

1. `decision_point`: the same moment, and so the same state of the market.
2. `minutes`: the same few minutes, for as long as the environment says that its state stays alike.
3. `class`: the window, among agents of its class.
4. `running_mean`: the rewards of earlier windows. In a first window it is the agents of all classes.

Company means answers of another trajectory: what an agent did later follows from what it did before. The bias and the
variance of each level are in docs/training.md.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import force_setattr

from babylon_assets.domain.gradient_shares import OVER_SHARE
from babylon_assets.domain.grouping import LEVELS, Ladder, Level, baseline_in, compared, level_of, measure_range
from babylon_assets.domain.samples import CountedSample, SampleHead
from babylon_assets.domain.trajectories import StepFacts, TrajectoryRecord

NO_RANGE = "group has no spread"
ALONE = "group has one sample"
WORSE_HALF = "worse half of its group"
REFUSED = "the environment refused it"
#: Why a sample is skipped that then has no advantage.
WITHOUT_ADVANTAGE = frozenset({ALONE, NO_RANGE, OVER_SHARE})
#: Decimals of a running mean: sums of the same rewards in another order give the same.
_DECIMALS = 6
#: The mean reward of earlier windows by an action's kind, and whether another model answered; None without any.
RunningMean = Callable[[str, bool], float | None]


class Likeness(NamedTuple):
    """What can be compared: by default all actions and all agents of a window, and nothing of another one.

    Attributes:
        kind_of, class_of, state_seconds: as of `Environment.action_kind`, `agent_class` and `state_seconds`.
        running_mean: it is asked only for what nothing in the window is compared with.
    """

    kind_of: Callable[[StepFacts], str] = lambda _: ""
    class_of: Callable[[TrajectoryRecord], str] = lambda _: ""
    state_seconds: float = 0.0
    running_mean: RunningMean | None = None


def place_in_groups(
    heads: Iterable[SampleHead], ladders: Mapping[str, Ladder], running_mean: RunningMean | None = None
) -> list[SampleHead]:
    """Give each sample the group of the first level that has company for it; without any, that of its decision point.

    Args:
        heads: the samples that may be compared; other models' answers are company for each other only.
        ladders: by sample id.

    Returns:
        The samples that nothing can be compared with.
    """
    left = [(head, ladders[head.sample_id]) for head in heads]
    for head, ladder in left:
        force_setattr(head, "group", ladder.point)
    for level in range(len(LEVELS) - 1):
        left = _without_company(left, level)
    alone: list[tuple[SampleHead, Ladder]] = []
    for head, ladder in left:
        mean = running_mean(ladder.kind, head.trains_as == "sft") if running_mean else None
        if mean is None:
            alone.append((head, ladder))
        else:
            force_setattr(head, "group", ladder.earlier(mean))
    return [head for head, _ in _without_company(alone, len(LEVELS) - 1)]


def _without_company(samples: Sequence[tuple[SampleHead, Ladder]], level: int) -> list[tuple[SampleHead, Ladder]]:
    """The samples that have no company on a level; the others are given its groups."""
    groups: dict[tuple[str | None, bool], list[tuple[SampleHead, Ladder]]] = defaultdict(list)
    for head, ladder in samples:
        groups[ladder.keys[level], head.trains_as == "sft"].append((head, ladder))
    lonely: list[tuple[SampleHead, Ladder]] = []
    for (key, _), members in groups.items():
        if key is None or not _have_company(members, level):
            lonely += members
        elif level:
            for head, _ladder in members:
                force_setattr(head, "group", key)
    return lonely


def _have_company(members: Sequence[tuple[SampleHead, Ladder]], level: int) -> bool:
    if level == 0 and not members[0][1].needs_company:
        return len(members) > 1
    return len({head.trajectory_id for head, _ in members}) > 1


def compare_samples(
    heads: Sequence[SampleHead],
    ladders: Mapping[str, Ladder],
    *,
    refused: Collection[str] = (),
    running_mean: RunningMean | None = None,
) -> None:
    """Give samples their groups and their advantages; skip what cannot be compared, and what is not to be imitated.

    Args:
        heads: samples, those that are skipped among them, ordered by trajectory, step and call within a decision point.
        refused: ids of samples that the environment refused: they are compared and never imitated.
    """
    for head in place_in_groups([head for head in heads if head.trains_as != "skip"], ladders, running_mean):
        skip_sample(head, ALONE)
    heads = [head for head in heads if head.trains_as != "skip"]
    comparison = compared([(head.group, head.trains_as == "sft") for head in heads], [_reward(head) for head in heads])
    rows = zip(*(column.tolist() for column in comparison), strict=True)
    for head, (advantage, reward_range, size, rank) in zip(heads, rows, strict=True):
        mean = baseline_in(head.group)
        if mean is not None:
            distance = _reward(head) - mean
            _settle(head, distance, has_range=bool(measure_range(abs(distance), 0.0)), worse=False, refused=refused)
        else:
            _settle(head, advantage, has_range=reward_range > 0, worse=rank >= size // 2, refused=refused)


def _reward(head: SampleHead) -> float:
    return head.reward or 0.0


def _settle(head: SampleHead, advantage: float, *, has_range: bool, worse: bool, refused: Collection[str]) -> None:
    """Give a sample its advantage, or the reason why it is skipped."""
    if not has_range:
        skip_sample(head, NO_RANGE)
        return
    force_setattr(head, "advantage", advantage)
    if head.trains_as == "sft" and (worse or advantage <= 0):
        skip_sample(head, WORSE_HALF)
    elif head.trains_as == "sft" and head.sample_id in refused:
        skip_sample(head, REFUSED)


def skip_sample(head: SampleHead, reason: str) -> None:
    """Change a head that nobody else has yet: another copy of each would cost as much as all that is decided."""
    force_setattr(head, "trains_as", "skip")
    force_setattr(head, "skip_reason", reason)
    if reason in WITHOUT_ADVANTAGE:
        force_setattr(head, "advantage", None)


def count_levels(samples: Iterable[CountedSample]) -> dict[Level, int]:
    """How many trained samples are compared on each level."""
    counts = Counter(level_of(sample.group) for sample in samples if sample.trains_as != "skip")
    return {level: counts[level] for level in LEVELS}


def mean_of(rewards: Iterable[tuple[float, int]]) -> float | None:
    """The mean of sums and counts, to as many decimals as a group's key has; None without any."""
    listed = list(rewards)
    count = sum(number for _, number in listed)
    return round(math.fsum(total for total, _ in listed) / count, _DECIMALS) if count else None
