"""Scorers: pure, named and versioned functions from steps to a number per step, and their weighted sum, the
reward.

What a trade was worth comes from `environments.babylon.outcomes`; which samples are compared is decided in
`domain.grouping`. How a user adds a scorer is in `domain.scorers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import pandas as pd

from babylon_assets.domain.errors import SettingsError
from babylon_assets.environments.babylon.outcomes import OutcomeTables, trade_worth

DEFAULT_WEIGHTS: Mapping[str, float] = {"outcome": 1.0, "heuristic": 0.1}
INVALID_REWARD = -0.5
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
class HeuristicScorer:
    """The game's own formula, per agent over one window, in [0, 1].

    With P the change of the agent's P&L within the window, `0.5 clamp((P + 1000) / 2000, 0, 1)` + `0.3` of
    the share of its decided trades that won (half if none is decided) + `0.2 min(1, steps / 20)`. P is the
    last less the first known P&L of the agent's steps in the order of time, so that what the agent earned
    before the window does not count.
    """

    name: str = "heuristic"
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        windows, _ = pd.factorize(steps["window"])
        agents, names = pd.factorize(steps["agent_id"])
        codes, uniques = pd.factorize(windows * (len(names) + 1) + agents)
        profit = _window_profit(steps, codes, len(uniques))
        decided = steps["worth"].where(steps["state"] == "final").to_numpy(dtype="float64")
        wins = np.bincount(codes, weights=decided > 0, minlength=len(uniques))
        losses = np.bincount(codes, weights=decided < 0, minlength=len(uniques))
        played = wins + losses
        win_rate = np.divide(wins, played, out=np.full(len(uniques), 0.5), where=played > 0)
        activity = np.minimum(1.0, np.bincount(codes, minlength=len(uniques)) / 20)
        score = 0.5 * np.clip((profit + 1000) / 2000, 0, 1) + 0.3 * win_rate + 0.2 * activity
        return pd.Series(score[codes], index=steps.index)


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


#: The scorers that are always there. A weight may name these and the added ones.
SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in (OutcomeScorer(), HeuristicScorer(), FormatScorer())}


def scorers_of(
    weights: Mapping[str, float], invalid_reward: float = INVALID_REWARD, added: Mapping[str, Scorer] | None = None
) -> list[Scorer]:
    """The scorers that have a weight, in the order of the weights; `added` are those besides `SCORERS`, by name.

    Raises:
        SettingsError: a weight names no scorer.
    """
    known = {**SCORERS, "outcome": OutcomeScorer(invalid_reward), **(added or {})}
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise SettingsError(
            f"REWARD_WEIGHTS names no scorer: {', '.join(unknown)}. Choose among {', '.join(known)}, set RULER_MODEL "
            "for ruler, or name a scorer of your own in SCORERS."
        )
    return [known[name] for name in weights]


def versions(weights: Mapping[str, float], added: Mapping[str, Scorer] | None = None) -> dict[str, str]:
    """The version of each scorer that has a weight."""
    return {scorer.name: scorer.version for scorer in scorers_of(weights, added=added)}


def combine(components: Mapping[str, pd.Series[Any]] | pd.DataFrame, weights: Mapping[str, float]) -> pd.Series[Any]:
    """The weighted sum of the components; NaN where one that has a weight other than 0 is NaN."""
    needed = [weight * components[name] for name, weight in weights.items() if weight]
    if not needed:
        return pd.Series(0.0, index=next(iter(pd.DataFrame(components).items()))[1].index)
    total = needed[0]
    for part in needed[1:]:
        total = total + part
    return total


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


def score_window(
    steps: pd.DataFrame,
    tables: OutcomeTables,
    *,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    invalid_reward: float = INVALID_REWARD,
    added: Mapping[str, Scorer] | None = None,
    as_of: datetime | None = None,
    horizon_minutes: float = 60,
    full_scale_percent: float = 10.0,
) -> pd.DataFrame:
    """Everything from a window's steps to their rewards.

    Returns:
        On the index of `steps`: `KEY_COLUMNS`, `state`, `worth`, a column per scorer, `reward` and `final`.
    """
    worth = trade_worth(
        steps, tables, as_of=as_of, horizon_minutes=horizon_minutes, full_scale_percent=full_scale_percent
    )
    valued = steps.assign(worth=worth["worth"], state=worth["state"])
    scored = score_steps(valued, weights, invalid_reward, added)
    return pd.concat([valued[[*KEY_COLUMNS, "state", "worth"]], scored], axis=1)


def _window_profit(steps: pd.DataFrame, codes: np.ndarray[Any, Any], agents: int) -> np.ndarray[Any, Any]:
    """Last less first known P&L per agent code, in dollars; 0 where fewer than two are known."""
    pnl = steps["pnl"].to_numpy(dtype="float64")
    known = np.flatnonzero(~np.isnan(pnl))
    order = known[np.lexsort((steps["step"].to_numpy()[known], steps["timestamp_ms"].to_numpy()[known]))]
    first, last = np.zeros(agents), np.zeros(agents)
    last[codes[order]] = pnl[order]
    first[codes[order[::-1]]] = pnl[order[::-1]]
    return last - first
