"""Rows of the game's tables about its markets, as the values that orders are valued by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from babylon_assets.environments.babylon.linking import GameTrade
from babylon_assets.environments.babylon.perps import PerpHolding
from babylon_assets.environments.babylon.pool_markets import Holding
from babylon_assets.environments.babylon.quotes import Quotes
from babylon_assets.environments.babylon.stakes import UNKNOWN, State
from babylon_assets.environments.babylon.words import closes_position, read_market_type, read_side

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def milliseconds_of(as_of: datetime | None) -> int | None:
    return None if as_of is None else (as_of - _EPOCH) // timedelta(milliseconds=1)


def until(frame: pd.DataFrame, time: str, moment: int | None) -> pd.DataFrame:
    return frame if moment is None or frame.empty else frame[_milliseconds(frame[time]) <= moment]


def read_game_trades(frame: pd.DataFrame, as_of: datetime | None) -> list[GameTrade]:
    """The game's trades that were executed up to a moment."""
    frame = until(frame, "executed_at", milliseconds_of(as_of))
    names = ("agent_id", "market_type", "market_id", "ticker", "action", "side", "amount", "price", "pnl")
    rows = zip(*(frame[name].tolist() for name in names), _milliseconds(frame["executed_at"]).tolist(), strict=True)
    return [_trade(*row) for row in rows]


def _trade(
    agent: str,
    market_word: Any,
    market: Any,
    ticker: Any,
    action: Any,
    side_word: Any,
    amount: float,
    price: float,
    pnl: float,
    at: int,
) -> GameTrade:
    market_type = read_market_type(market_word) if is_text(market_word) else None
    side = read_side(side_word) if is_text(side_word) else None
    closes = closes_position(action) if is_text(action) else None
    word = None
    if market_type is None:
        word = f"AgentTrade.marketType {market_word}"
    elif closes is None:
        word = f"AgentTrade.action {action}"
    elif is_text(side_word) and side is None:
        word = f"AgentTrade.side {side_word}"
    ticker = ticker if is_text(ticker) else market
    instrument = market if market_type == "prediction" or (market_type is None and is_text(market)) else ticker
    return GameTrade(
        agent=agent,
        market_type=market_type,
        instrument=instrument if is_text(instrument) else None,
        side=side.side if side else None,
        closes=bool(closes),
        amount=amount,
        price=price,
        pnl=pnl,
        at=at,
        word=word,
    )


def share_quotes(frame: pd.DataFrame) -> Quotes:
    """Probabilities by side and market."""
    times = _milliseconds(frame["created_at"]).tolist()
    rows = zip(frame["market_id"].tolist(), times, frame["yes_price"].tolist(), frame["no_price"].tolist(), strict=True)
    return Quotes(
        quote for market, at, yes, no in rows for quote in ((f"yes {market}", at, yes), (f"no {market}", at, no))
    )


def stock_quotes(frame: pd.DataFrame) -> Quotes:
    times = _milliseconds(frame["timestamp"]).tolist()
    return Quotes(zip(frame["ticker"].tolist(), times, frame["price"].tolist(), strict=True))


def pool_holdings(frame: pd.DataFrame, moment: int | None) -> list[Holding]:
    """The positions; what came of one is known from its resolution on."""
    names = ("agent_id", "market_id", "side", "shares", "price", "pnl", "resolved_at")
    rows = zip(*(frame[name].tolist() for name in names), strict=True)
    return [
        Holding(agent, market, side, shares, price, pnl if isfinite(pnl) and _known(resolved, moment) else None)
        for agent, market, side, shares, price, pnl, resolved in rows
    ]


def _known(resolved: float, moment: int | None) -> bool:
    """Whether a position was settled up to a moment."""
    return isfinite(resolved) and (moment is None or resolved <= moment)


def perp_holdings(frame: pd.DataFrame, moment: int | None) -> list[PerpHolding]:
    names = ("agent_id", "ticker", "side", "entry", "size", "leverage", "opened_at", "closed_at", "adds")
    rows = zip(*(frame[name].tolist() for name in names), strict=True)
    holdings = []
    for agent, ticker, side, entry, size, leverage, opened, closed, adds in rows:
        if isfinite(opened):
            end = int(closed) if isfinite(closed) and (moment is None or closed <= moment) else None
            holdings.append(PerpHolding(agent, ticker, side, entry, size, leverage, int(opened), end, adds > 0))
    return holdings


def resolutions_of(
    markets: pd.DataFrame, notes: pd.DataFrame, moment: int | None
) -> dict[str, tuple[float | None, State]]:
    """Markets as far as they are resolved; where they are not, or are gone, the last note of them that says more."""
    states: dict[str, tuple[float | None, State]] = {}
    resolved = markets["resolved"].to_numpy(dtype=bool)
    if moment is not None and len(markets):
        resolved = resolved & (_milliseconds(markets["updated_at"]) <= moment)
    columns = markets["market_id"].tolist(), resolved.tolist(), markets["resolution"].tolist()
    for market, done, resolution in zip(*columns, strict=True):
        if not done:
            states[market] = (None, "pending")
        else:
            states[market] = (None, "unknown") if pd.isna(resolution) else (float(resolution), "final")
    pairs = zip(notes["market_id"].tolist(), notes["outcome"].tolist(), strict=True)
    for market, outcome in {market: outcome for market, outcome in pairs if is_text(market)}.items():
        value = {"YES": 1.0, "NO": 0.0}.get(outcome.upper() if is_text(outcome) else "")
        if states.get(market, UNKNOWN)[1] != "final" and (value is not None or market not in states):
            states[market] = (value, "pending" if value is None else "final")
    return states


def read_noted_changes(notes: pd.DataFrame) -> dict[tuple[str, str], float]:
    columns = (notes[name].tolist() for name in ("window", "ticker", "change_percent"))
    return {
        (window, ticker): change
        for window, ticker, change in zip(*columns, strict=True)
        if is_text(ticker) and change == change
    }


def _milliseconds(times: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Epoch milliseconds as int64."""
    milliseconds: np.ndarray[Any, Any] = pd.DatetimeIndex(times).as_unit("ms").asi8
    return milliseconds
