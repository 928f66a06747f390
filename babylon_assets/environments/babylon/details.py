"""What a step of the game has besides what every step has: the agent's money before it, and what it traded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from babylon_assets.domain import frames
from babylon_assets.domain.frames import Episode
from babylon_assets.domain.trajectories import StepFacts
from babylon_assets.environments.babylon.words import MarketType, Side

#: The columns of a step's details by pandas dtype. `balance` and `pnl` are the agent's balance and lifetime P&L in
#: virtual dollars before the action; `amount` is the stake as the game wrote it, `closes` says that it ends a position,
#: `until_ms` until when its trade may have been executed, `word` which word of it is not known.
DETAIL: Mapping[str, str] = {
    "balance": "float64",
    "pnl": "float64",
    "market_type": "object",
    "market_id": "object",
    "ticker": "object",
    "side": "object",
    "amount": "float64",
    "closes": "object",
    "until_ms": "float64",
    "word": "object",
}
#: Under these names the game writes what was not known when the policy answered.
RESULT_KEYS: tuple[str, ...] = (
    *("pnlChange", "finalPnL", "finalBalance", "gameKnowledge", "trueProbabilities", "actualOutcomes"),
    *("futureOutcomes", "rewardComponents", "aiJudgeReward"),
)


def make_step(
    step: int,
    timestamp_ms: int,
    moment_ms: int,
    balance: float | None,
    pnl: float | None,
    action_type: str,
    market_type: MarketType | None,
    market_id: str | None,
    ticker: str | None,
    side: Side | None,
    amount: float | None,
    success: bool | None,
    error: str | None,
    invalid: bool,
    closes: bool | None = None,
    until_ms: int | None = None,
    word: str | None = None,
) -> StepFacts:
    """A step of the game; a detail that the game does not say is left out."""
    values = (balance, pnl, market_type, market_id, ticker, side, amount, closes or None, until_ms, word)
    detail = {name: value for name, value in zip(DETAIL, values, strict=True) if value is not None}
    return StepFacts(step, timestamp_ms, moment_ms, action_type, success, error, invalid, detail)


def steps_frame(records: Iterable[Episode]) -> pd.DataFrame:
    """One row per step of the game's records, with `frames.STEP_COLUMNS` and `DETAIL`."""
    return frames.steps_frame(records, DETAIL)


def instruments(facts: Iterable[StepFacts]) -> list[str]:
    """The prediction markets and tickers that some steps name, each once, sorted."""
    details: Iterable[dict[str, Any]] = (fact.detail for fact in facts)
    named = {detail.get(name) for detail in details for name in ("market_id", "ticker")}
    return sorted(name for name in named if name is not None)
