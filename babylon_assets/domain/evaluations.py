"""What measurements of policies say: intervals by bootstrap, pairs of better and worse answers, off-policy estimates.

Numbers in, numbers out. How they are measured is decided in `evaluation`, what they lead to in `gates`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

#: Draws of a bootstrap; the ends of a 95% interval then vary by about a fiftieth of its width.
RESAMPLES = 4000
#: Of what a policy would answer, the share that others' answers must hold to say what it would have earned.
LEAST_COVERED = 0.5
#: Rewards of a group that differ by less than this do not say which answer is better.
SMALLEST_GAP = 1e-6

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | Floats, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of independent values with its percentile bootstrap interval (Efron 1979).

    Args:
        values: one per independent unit, such as the mean over the boards of a seed; not empty.
    """
    array = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(array[draws].mean(axis=1), [tail, 100 - tail])
    return Interval(float(array.mean()), float(low), float(high))


def paired(ours: Sequence[float], theirs: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `ours` less `theirs`, unit by unit; both were measured on the same units in the same order.

    Raises:
        ValueError: they are not equally long.
    """
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    return bootstrap(differences, confidence=confidence, seed=seed)


@dataclass(frozen=True, slots=True)
class PolicyEvaluation:
    """What one policy did on a benchmark, per seed and in the seeds' order.

    Attributes:
        rewards, valid: mean reward and share of valid actions.
        oracle: reward of the best that could have been done.
    """

    seeds: tuple[int, ...]
    rewards: tuple[float, ...]
    valid: tuple[float, ...]
    oracle: tuple[float, ...]

    @property
    def reward(self) -> float:
        return float(np.mean(self.rewards))

    @property
    def valid_share(self) -> float:
        return float(np.mean(self.valid))

    @property
    def advantage(self) -> float:
        """Share of the oracle's advantage over acting at random, which earns 0 by symmetry."""
        return self.reward / float(np.mean(self.oracle))


class ScoredAnswer(NamedTuple):
    """An answer whose reward is known: its group, and its log-probability in nats under the policy in question."""

    group: str
    reward: float
    logprob: float


def preferences(answers: Iterable[ScoredAnswer]) -> dict[str, float]:
    """How much likelier the better answers are than the worse, per group: the mean of log p(better) - log p(worse).

    Over all pairs of a group whose rewards differ; a group without such a pair is left out.
    """
    groups: dict[str, list[ScoredAnswer]] = defaultdict(list)
    for answer in answers:
        groups[answer.group].append(answer)
    by_group = {group: _gaps(members) for group, members in groups.items()}
    return {group: float(np.mean(gaps)) for group, gaps in sorted(by_group.items()) if gaps}


def _gaps(members: Sequence[ScoredAnswer]) -> list[float]:
    return [
        better.logprob - worse.logprob
        for better in members
        for worse in members
        if better.reward - worse.reward > SMALLEST_GAP
    ]


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """What a policy would have earned on another's record.

    Attributes:
        value: the estimate; None when it is refused.
        effective: effective sample size, (sum w)^2 / sum w^2 of the weights (Kish 1965).
        behaviour: mean reward of the policy that really answered.
        refused: why there is no estimate; None when there is one.
    """

    value: float | None
    effective: float
    behaviour: float
    refused: str | None


def off_policy(
    policy: Sequence[float], behaviour: Sequence[float], rewards: Sequence[float], least_effective: float
) -> OffPolicy:
    """Self-normalised importance sampling: the mean of the rewards weighted by p(policy) / p(behaviour) per answer.

    The weights have the mean 1 over all that the behaviour could answer. Where theirs is far lower, most of what the
    policy would answer was never tried, and what its other answers earned says nothing of it.

    Args:
        policy, behaviour: log-probability of each whole answer under the policy in question, and as it was sampled.
        least_effective: below this effective sample size a few answers decide everything, and no estimate is given.
    """
    if not rewards:
        return OffPolicy(None, 0.0, float("nan"), "there is no held-out answer with a known reward")
    ratios = np.asarray(policy, dtype=float) - np.asarray(behaviour, dtype=float)
    weights = np.exp(ratios - ratios.max())
    log_covered = float(np.log(weights.mean()) + ratios.max())
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    mean = float(np.mean(rewards))
    if effective < least_effective:
        estimate = (
            f"its effective sample size is {effective:.1f} of {len(rewards)}, at least {least_effective:g} are needed"
        )
        return OffPolicy(None, effective, mean, estimate)
    if log_covered < np.log(LEAST_COVERED):
        estimate = f"about {np.exp(log_covered):.0%} of what it would answer is among the answers given"
        return OffPolicy(None, effective, mean, f"{estimate}, at least {LEAST_COVERED:.0%} are needed")
    return OffPolicy(float((weights * np.asarray(rewards)).sum() / weights.sum()), effective, mean, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """How a policy played one of the environment's snapshots, as the environment is told of it.

    Attributes:
        version: what decides the numbers; path: where the snapshot was read.
        pnl: mean over the runs, in dollars; base_pnl, base_accuracy: the base model's, where it was measured.
        figures: `accuracy`, `win_rate`, `of_optimal` and others; None where a figure is not known.
    """

    checkpoint_id: str
    inference_name: str
    benchmark: str
    version: str
    path: str
    pnl: float
    base_pnl: float | None
    base_accuracy: float | None
    figures: Mapping[str, Any]
    milliseconds: int
