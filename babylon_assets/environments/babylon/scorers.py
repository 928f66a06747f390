"""The game's own formula, and its own judgments, as scorers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from babylon_assets.domain.rewards import DEFAULT_WEIGHTS, score_valued
from babylon_assets.environments.babylon.outcomes import OutcomeTables, trade_worth


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
class GameJudgmentScorer:
    """The game's own judgment of the step's trajectory, in [0, 1]; NaN where there is none."""

    name: str = "game_judgment"
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        unknown = pd.Series(np.nan, index=steps.index, dtype="float64")
        return steps.get("judgment", unknown)


@dataclass(frozen=True)
class JudgmentPartScorer:
    """A part of the game's own judgment of the step's trajectory, as `reward_judgments.PARTS`; NaN where it is none."""

    name: str
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        unknown = pd.Series(np.nan, index=steps.index, dtype="float64")
        return steps.get(self.name, unknown)


def _window_profit(steps: pd.DataFrame, codes: np.ndarray[Any, Any], agents: int) -> np.ndarray[Any, Any]:
    """Last less first known P&L per agent code, in dollars; 0 where fewer than two are known."""
    pnl = steps["pnl"].to_numpy(dtype="float64")
    known = np.flatnonzero(~np.isnan(pnl))
    order = known[np.lexsort((steps["step"].to_numpy()[known], steps["timestamp_ms"].to_numpy()[known]))]
    first, last = np.zeros(agents), np.zeros(agents)
    last[codes[order]] = pnl[order]
    first[codes[order[::-1]]] = pnl[order[::-1]]
    return last - first


def score_game_steps(
    steps: pd.DataFrame,
    tables: OutcomeTables,
    *,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    as_of: datetime | None = None,
) -> pd.DataFrame:
    """From steps of the game and what is known of its markets to rewards: see `domain.rewards.score_valued`."""
    worth = trade_worth(steps, tables, as_of=as_of)
    return score_valued(steps, worth, weights=weights, added={"heuristic": HeuristicScorer()})
