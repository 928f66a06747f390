"""A policy on recorded prompts: which ones it is asked, and how its answers compare with another policy's.

The prompts are those that an environment's own agents were given. An answer's action is valued by the environment's
record. Two policies are asked the same prompts with the same random numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from babylon_assets.domain.evaluations import RESAMPLES, Interval
from babylon_assets.domain.sampling import hash_draw

#: With fewer agents than this an interval over agents says nothing, and an agent's windows count one by one.
FEWEST_AGENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlace:
    """Where a recorded prompt is kept: the executed call of one step.

    Attributes:
        held_out: its agent is never trained on. Of other agents only prompts before the checkpoint's window are asked,
            so that the policies that are compared know them equally well.
        recorded_worth: what the recorded answer's action turned out to be worth; None while that is not known.
    """

    dataset_id: str
    window: str
    trajectory_id: str
    agent_id: str
    step: int
    call: int
    held_out: bool
    recorded_worth: float | None

    @property
    def id(self) -> str:
        """The sample's id."""
        return f"{self.trajectory_id}/{self.step}/{self.call}"


class PromptAnswer(NamedTuple):
    """What one answer came to: its reward, None where the record does not say, and whether it could be carried out."""

    agent: str
    window: str
    reward: float | None
    valid: bool


@dataclass(frozen=True, slots=True)
class PromptComparison:
    """Two policies on the prompts that both were asked.

    Attributes:
        reward: mean difference over the prompts where the record values both answers; None where there is none.
        valid: difference of the shares of answers that could be carried out.
        prompts, agents: how many prompts the first is over, and of how many agents.
        asked: how many prompts both were asked.
        valid_share: share of our answers that could be carried out; None where nothing was asked.
    """

    reward: Interval | None
    valid: Interval | None
    prompts: int
    agents: int
    asked: int
    valid_share: float | None


def choose_prompts(places: Iterable[PromptPlace], most: int, seed: int = 0) -> list[PromptPlace]:
    """At most `most` prompts: those of held-out agents first, every agent in turn, in an order drawn by the seed."""
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for place in sorted(places, key=lambda place: (hash_draw(seed, place.id), place.id)):
        turns[place.agent_id] += 1
        ranked.append((not place.held_out, turns[place.agent_id], place))
    ranked.sort(key=lambda entry: entry[:2])
    return [place for *_, place in ranked[:most]]


def compare_answers(
    ours: Mapping[str, PromptAnswer], theirs: Mapping[str, PromptAnswer], *, confidence: float = 0.95
) -> PromptComparison:
    """Our answers less theirs, prompt by prompt; both by the prompts' ids."""
    shared = sorted(set(ours) & set(theirs))
    valued = [name for name in shared if ours[name].reward is not None and theirs[name].reward is not None]
    rewards = [(ours[name].reward or 0.0) - (theirs[name].reward or 0.0) for name in valued]
    valids = [float(ours[name].valid) - float(theirs[name].valid) for name in shared]
    return PromptComparison(
        reward=clustered(rewards, clusters([ours[name] for name in valued]), confidence=confidence),
        valid=clustered(valids, clusters([ours[name] for name in shared]), confidence=confidence),
        prompts=len(valued),
        agents=len({ours[name].agent for name in valued}),
        asked=len(shared),
        valid_share=sum(ours[name].valid for name in shared) / len(shared) if shared else None,
    )


def clusters(answers: Sequence[PromptAnswer]) -> list[str]:
    """What each answer is resampled with: its agent; where there are few agents, its agent's window."""
    few = len({answer.agent for answer in answers}) < FEWEST_AGENTS
    return [f"{answer.agent}\0{answer.window}" if few else answer.agent for answer in answers]


def clustered(
    values: Sequence[float], groups: Sequence[str], *, confidence: float = 0.95, seed: int = 0
) -> Interval | None:
    """The mean of values with an interval from a bootstrap of whole clusters (Cameron, Gelbach, Miller 2008).

    Args:
        groups: the cluster of each value; values of one cluster are not independent.

    Returns:
        None without values.
    """
    if not values:
        return None
    names, codes = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(np.mean(values)), float(low), float(high))
