"""What a step is credited with where a tick has several: its own worth, or the rest of the tick as well."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from babylon_assets.domain.samples import StepScore, StepScores


def discount_rest(scores: StepScores, discount: float) -> StepScores:
    """The scores with rewards that hold what later steps of the same trajectory earned.

    The reward of step t becomes G_t = r_t + discount G_(t+1), the discounted return (Sutton & Barto 2018, section 3.3).
    A step whose reward can never be known adds nothing. One whose reward is not known yet leaves all steps before it
    unknown, until it is.

    Args:
        scores: by trajectory id and step; a trajectory is one tick.
        discount: from 0, each step's own worth, to 1.
    """
    if not discount:
        return scores
    ticks: dict[str, list[int]] = defaultdict(list)
    for trajectory, step in scores:
        ticks[trajectory].append(step)
    credited: dict[tuple[str, int], StepScore] = dict(scores)
    for trajectory, steps in ticks.items():
        for later, step in pairwise(sorted(steps, reverse=True)):
            credited[trajectory, step] = _credited(scores[trajectory, step], credited[trajectory, later], discount)
    return credited


def _credited(own: StepScore, rest: StepScore, discount: float) -> StepScore:
    """A step's score with what the next step is credited with."""
    reward, state, components = own
    later, later_state, _ = rest
    if reward is None or (later is None and later_state == "unknown"):
        return own
    return (None, "pending", components) if later is None else (reward + discount * later, state, components)
