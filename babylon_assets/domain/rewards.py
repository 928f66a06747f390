"""Scorers: pure, named and versioned functions from steps to a number per step, and their weighted sum, the
reward.

An environment says what a step was worth and may bring scorers of its own; a user adds others (`domain.scorers`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.samples import StepScore

DEFAULT_WEIGHTS: Mapping[str, float] = {"outcome": 1.0, "heuristic": 0.1}
INVALID_REWARD = -0.5
#: A reward beyond this is none: float32, in which a gradient is computed, ends at 3e38.
LARGEST_REWARD = 1e30
KEY_COLUMNS = ("window", "trajectory_id", "agent_id", "step")


class Scorer(Protocol):
    """Gives each step a number, NaN where it cannot say yet. Other results mean another version."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        """Score steps (`frames.STEP_COLUMNS` with `worth` and `state`), on their index."""
        ...


@dataclass(frozen=True)
class OutcomeScorer:
    """What the step's trade was worth, in [-1, 1]; `invalid_reward` where it could not be carried out."""

    invalid_reward: float = INVALID_REWARD
    name: str = "outcome"
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        return steps["worth"].mask(steps["state"] == "invalid", self.invalid_reward)


@dataclass(frozen=True)
class FormatScorer:
    """Could the action be carried out: 1 or 0."""

    name: str = "format"
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        return (steps["state"] != "invalid").astype("float64")


@dataclass(frozen=True)
class JudgeScorer:
    """Scores that were made elsewhere, such as by a judge: a number per step, on the index of the steps."""

    name: str
    version: str
    values: pd.Series[Any]

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        return self.values.reindex(steps.index).astype("float64")


#: The scorers that every environment has. A weight may name these, the environment's own, and those of a user.
SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in (OutcomeScorer(), FormatScorer())}


def scorers_of(
    weights: Mapping[str, float], invalid_reward: float = INVALID_REWARD, added: Mapping[str, Scorer] | None = None
) -> list[Scorer]:
    """The scorers that have a weight, in the order of the weights; `added` are those besides `SCORERS`, by name.

    Raises:
        SettingsError: a weight names no scorer.
    """
    known = {**SCORERS, "outcome": OutcomeScorer(invalid_reward), **(added or {})}
    refuse_unknown(weights, known)
    return [known[name] for name in weights]


def refuse_unknown(weights: Mapping[str, float], known: Collection[str]) -> None:
    """Refuse weights of scorers that are not there.

    Raises:
        SettingsError: a weight names no scorer.
    """
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise SettingsError(
            f"REWARD_WEIGHTS names no scorer: {', '.join(unknown)}. Choose among {', '.join(known)}, set RULER_MODEL "
            "for ruler, or name a scorer of your own in SCORERS."
        )


def versions(weights: Mapping[str, float], added: Mapping[str, Scorer] | None = None) -> dict[str, str]:
    """The version of each scorer that has a weight."""
    return {scorer.name: scorer.version for scorer in scorers_of(weights, added=added)}


def combine(components: Mapping[str, pd.Series[Any]] | pd.DataFrame, weights: Mapping[str, float]) -> pd.Series[Any]:
    """The weighted sum of the components; NaN where one that has a weight other than 0 is NaN."""
    needed = [weight * components[name] for name, weight in weights.items() if weight]
    if not needed:
        return pd.Series(0.0, index=pd.DataFrame(components).index)
    total = needed[0]
    for part in needed[1:]:
        total = total + part
    return total


def without_extremes(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with NaN for each reward beyond LARGEST_REWARD, such as a sum that no float holds."""
    return scores.assign(reward=scores["reward"].where(scores["reward"].abs() <= LARGEST_REWARD))


def score_steps(
    steps: pd.DataFrame,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    invalid_reward: float = INVALID_REWARD,
    added: Mapping[str, Scorer] | None = None,
) -> pd.DataFrame:
    """Score steps whose worth is known: `frames.STEP_COLUMNS` with `worth` and `state`.

    Returns:
        On the index of `steps`: a column per scorer, `reward` (NaN while it is not known), and `final`, which
        is False where an outcome is still to come.
    """
    scorers = scorers_of(weights, invalid_reward, added)
    scored = pd.DataFrame({scorer.name: scorer.score(steps) for scorer in scorers}, index=steps.index)
    scored["reward"] = combine(scored, weights)
    scored["final"] = steps["state"] != "pending"
    return scored


def refused_score(score: StepScore, weights: Mapping[str, float], invalid_reward: float = INVALID_REWARD) -> StepScore:
    """The score of an answer that was refused, while another answer of its step was carried out.

    What came of the step is not its doing: its outcome is `invalid_reward` and its format 0; all else is the step's.
    """
    _, state, components = score
    if state == "unscored":
        return score
    own = {name: value for name, value in (("outcome", invalid_reward), ("format", 0.0)) if name in components}
    components = {**components, **own}
    parts = [(weight, components.get(name)) for name, weight in weights.items() if weight]
    known = [weight * value for weight, value in parts if value is not None]
    return (sum(known) if len(known) == len(parts) else None), "invalid", components


def unvalued(steps: pd.DataFrame) -> pd.DataFrame:
    """The worth of steps of which nobody says anything: `worth` is NaN and `state` is unknown."""
    return pd.DataFrame({"worth": float("nan"), "state": "unknown"}, index=steps.index)


def score_valued(
    steps: pd.DataFrame,
    worth: pd.DataFrame,
    *,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    invalid_reward: float = INVALID_REWARD,
    added: Mapping[str, Scorer] | None = None,
) -> pd.DataFrame:
    """From a window's steps and what they turned out to be worth to their rewards.

    Args:
        worth: on the index of `steps`, with `worth` and `state`, as `Environment.value_steps` gives it; scorers see its
            other columns as well.

    Returns:
        On the index of `steps`: `KEY_COLUMNS`, `state`, `worth`, a column per scorer, `reward` and `final`.
    """
    valued = steps.assign(**{str(name): worth[name] for name in worth.columns})
    scored = score_steps(valued, weights, invalid_reward, added)
    return pd.concat([valued[[*KEY_COLUMNS, "state", "worth"]], scored], axis=1)
