"""What each step's action turned out to be worth, as far as it is known.

A hold is worth nothing. A trade is worth what the game's own arithmetic says of the game's own record of it. What is
not known yet, what cannot be known, and what a word that nobody knows stands for, are values of their own: none is 0.
These types are hindsight: no prompt or answer is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.babylon.linking import (
    DEFAULT_STAKE,
    MATCH_WITHIN_MS,
    GameTrade,
    StepOrder,
    TradeBook,
    link_trades,
)
from babylon_assets.environments.babylon.market_record import (
    is_text,
    milliseconds_of,
    perp_holdings,
    pool_holdings,
    read_game_trades,
    read_noted_changes,
    resolutions_of,
    share_quotes,
    stock_quotes,
    until,
)
from babylon_assets.environments.babylon.net_perps import NetPerps
from babylon_assets.environments.babylon.perps import PerpRules, value_perp
from babylon_assets.environments.babylon.pool_markets import PoolMarkets
from babylon_assets.environments.babylon.quotes import Quotes
from babylon_assets.environments.babylon.rules import BABYLON, GameRules
from babylon_assets.environments.babylon.share_markets import value_share_order
from babylon_assets.environments.babylon.stakes import UNKNOWN, Valued
from babylon_assets.environments.babylon.words import read_action

_MINUTE_MS = 60_000
_Instants = "datetime64[ms, UTC]"


def _empty(spec: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in spec.items()})


@dataclass(frozen=True)
class OutcomeTables:
    """What is known of a window's trades: a frame per source, with the columns and types declared here.

    Attributes:
        windows: how time is cut into the windows of the steps; those of `market_outcomes` are the game's, hours.
    """

    TRADES: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("agent_id", "market_type", "market_id", "ticker", "action", "side"), "object"),
        **dict.fromkeys(("amount", "price", "pnl"), "float64"),
        "executed_at": _Instants,
    }
    MARKETS: ClassVar[dict[str, str]] = {
        "market_id": "object",
        "resolved": "bool",
        "resolution": "boolean",
        "end_date": _Instants,
        "updated_at": _Instants,
    }
    PREDICTION_PRICES: ClassVar[dict[str, str]] = {
        "market_id": "object",
        "yes_price": "float64",
        "no_price": "float64",
        "created_at": _Instants,
    }
    STOCK_PRICES: ClassVar[dict[str, str]] = {"ticker": "object", "price": "float64", "timestamp": _Instants}
    MARKET_OUTCOMES: ClassVar[dict[str, str]] = {
        "window": "object",
        "ticker": "object",
        "change_percent": "float64",
        "market_id": "object",
        "outcome": "object",
        "created_at": _Instants,
    }

    POSITIONS: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("agent_id", "market_id", "side"), "object"),
        **dict.fromkeys(("shares", "price", "pnl"), "float64"),
        "resolved_at": "float64",
    }
    PERP_POSITIONS: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("agent_id", "ticker", "side"), "object"),
        **dict.fromkeys(("entry", "size", "leverage", "opened_at", "closed_at", "adds"), "float64"),
    }

    trades: pd.DataFrame
    markets: pd.DataFrame
    prediction_prices: pd.DataFrame
    stock_prices: pd.DataFrame
    market_outcomes: pd.DataFrame
    positions: pd.DataFrame = field(default_factory=lambda: _empty(OutcomeTables.POSITIONS))
    perp_positions: pd.DataFrame = field(default_factory=lambda: _empty(OutcomeTables.PERP_POSITIONS))
    windows: WindowGrid = HOURLY

    @classmethod
    def empty(cls) -> OutcomeTables:
        """Nothing is known."""
        specs = (cls.TRADES, cls.MARKETS, cls.PREDICTION_PRICES, cls.STOCK_PRICES, cls.MARKET_OUTCOMES)
        trades, markets, quotes, stock, notes = map(_empty, specs)
        return cls(trades, markets, quotes, stock, notes)


def trade_worth(
    steps: pd.DataFrame,
    tables: OutcomeTables,
    *,
    as_of: datetime | None = None,
    horizon_minutes: float = 60,
    full_scale_percent: float = 10.0,
    rules: GameRules = BABYLON,
) -> pd.DataFrame:
    """Say for each step what its action was worth.

    Args:
        steps: one row per step with `frames.STEP_COLUMNS` and `details.DETAIL`.
        as_of: what was resolved or priced later is not known yet; None takes all that the tables hold.
        horizon_minutes: a perpetual that its agent has not closed is valued at the first price this long after it.
        full_scale_percent: return of a perpetual, in percent, that is worth 1.

    Returns:
        A frame on the index of `steps`: `worth` (float, NaN when it is not known), `state` (see `State`), the prices
        `entry` and `exit` per share or unit that worth was computed from (NaN where there is none), the action's `kind`
        (None where its name is not known), `linked` (whether a trade was found in the game's own record; None where
        the step made none), and `word`, what of it is not known.
    """
    book = TradeBook(read_game_trades(tables.trades, as_of))
    kinds, valued = _untraded(steps)
    orders = _orders(steps, [row for row, kind in enumerate(kinds) if kind == "trade" and valued[row] is None], rules)
    links = link_trades(orders, book)
    markets = _Markets.of(tables, book, rules, as_of, horizon_minutes * _MINUTE_MS, full_scale_percent)
    markets.decide({book.trades[links[order.row]]: order.at for order in orders if order.row in links})
    windows = _hours(steps) if tables.windows != HOURLY else steps["window"].tolist()
    words = [
        word if kind or is_text(word) else f"actionType {name}"
        for word, kind, name in zip(steps["word"], kinds, steps["action_type"], strict=True)
    ]
    for order in orders:
        if order.row in links:
            valued[order.row] = markets.value(order, book.trades[links[order.row]], windows[order.row])
        elif not is_text(words[order.row]):
            words[order.row] = book.unknown_word(order)
    linked = [order.row in links for order in orders]
    return _frame(steps, kinds, valued, dict(zip((order.row for order in orders), linked, strict=True)), words)


def _untraded(steps: pd.DataFrame) -> tuple[list[str | None], list[Valued | None]]:
    """The kind of each step's action, and what is known of those that made no trade; None for those that did."""
    kinds: list[str | None] = []
    valued: list[Valued | None] = []
    columns = ("action_type", "success", "invalid", "market_type", "market_id", "ticker", "word")
    for action_type, success, invalid, market_type, market_id, ticker, word in zip(
        *(steps[name].tolist() for name in columns), strict=True
    ):
        action = read_action(action_type)
        named = is_text(market_type) and is_text(market_id if market_type == "prediction" else ticker)
        kinds.append(action.kind)
        if invalid:
            valued.append(Valued(None, "invalid"))
        elif action.kind == "hold" or (action.decides and success is False):
            valued.append(_HELD)
        elif action.kind != "trade" or is_text(word) or success is False:
            valued.append(UNKNOWN)
        elif named:
            valued.append(None)
        else:
            valued.append(_HELD if action.decides and not is_text(market_type) else UNKNOWN)
    return kinds, valued


_HELD = Valued(0.0, "no_trade")


def _orders(steps: pd.DataFrame, rows: Sequence[int], rules: GameRules) -> list[StepOrder]:
    """What the steps at these places traded."""
    names = ("agent_id", "action_type", "market_type", "market_id", "ticker", "side", "amount", "closes")
    column = {name: steps[name].tolist() for name in (*names, "timestamp_ms", "until_ms")}
    return [_order(row, {name: values[row] for name, values in column.items()}, rules) for row in rows]


def _order(row: int, step: Mapping[str, Any], rules: GameRules) -> StepOrder:
    at, action, amount = int(step["timestamp_ms"]), read_action(step["action_type"]), step["amount"]
    since, until = at - MATCH_WITHIN_MS, at + MATCH_WITHIN_MS + 1
    closes: bool | None = True if step["closes"] is True or action.closes else None
    if rules.trades_follow_steps:
        since, until = at, int(step["until_ms"]) if step["until_ms"] == step["until_ms"] else until
        closes = closes or False
    elif closes is None and action.surely_opens:
        closes = False
    is_prediction = step["market_type"] == "prediction"
    return StepOrder(
        row=row,
        agent=step["agent_id"],
        market_type=step["market_type"],
        instrument=step["market_id"] if is_prediction else step["ticker"],
        side=step["side"] if is_text(step["side"]) else None,
        closes=closes,
        amount=amount if amount == amount and amount else DEFAULT_STAKE,
        at=at,
        since=since,
        until=until,
    )


class _Markets:
    """What is known of the markets at a moment, by which orders with their trades are valued."""

    def __init__(
        self, book: TradeBook, rules: GameRules, shares: Quotes, resolutions: Mapping[str, Any], perps: PerpRules
    ) -> None:
        self._book, self._rules, self._shares = book, rules, shares
        self._resolutions, self._perps = resolutions, perps
        self._pool = PoolMarkets(book, shares, resolutions, ())
        self._net = NetPerps(book, perps, {})

    @classmethod
    def of(
        cls,
        tables: OutcomeTables,
        book: TradeBook,
        rules: GameRules,
        as_of: datetime | None,
        horizon_ms: float,
        full_scale_percent: float,
    ) -> _Markets:
        moment = milliseconds_of(as_of)
        notes = until(tables.market_outcomes, "created_at", moment)
        notes = notes if rules.notes_are_outcomes else notes[:0]
        perps = PerpRules(
            horizon_ms=horizon_ms,
            full_scale_percent=full_scale_percent,
            quotes=stock_quotes(until(tables.stock_prices, "timestamp", moment)),
            holdings=perp_holdings(tables.perp_positions, moment),
            changes=read_noted_changes(notes),
        )
        shares = share_quotes(until(tables.prediction_prices, "created_at", moment))
        markets = cls(book, rules, shares, resolutions_of(tables.markets, notes, moment), perps)
        markets._pool = PoolMarkets(book, shares, markets._resolutions, pool_holdings(tables.positions, moment))
        return markets

    def decide(self, decided: Mapping[GameTrade, int]) -> None:
        """Say when the steps of these trades were."""
        self._net = NetPerps(self._book, self._perps, decided)

    def value(self, order: StepOrder, trade: GameTrade, window: str) -> Valued:
        if order.market_type == "prediction":
            if self._rules.winners_share:
                return self._pool.value(order, trade)
            return value_share_order(order, trade, self._book, self._shares, self._resolutions)
        if self._rules.positions_net:
            return self._net.value(order, trade)
        return value_perp(order, trade, self._book, self._perps, window)


def _frame(
    steps: pd.DataFrame,
    kinds: Sequence[str | None],
    valued: Sequence[Valued | None],
    linked: Mapping[int, bool],
    words: Sequence[Any],
) -> pd.DataFrame:
    known = [UNKNOWN if value is None else value for value in valued]
    columns: dict[str, Any] = {
        "worth": np.array([value.worth for value in known], dtype="float64"),
        "state": _objects([value.state for value in known]),
        "entry": np.array([value.entry for value in known], dtype="float64"),
        "exit": np.array([value.exit for value in known], dtype="float64"),
        "kind": _objects(kinds),
        "linked": _objects([linked.get(row) for row in range(len(known))]),
        "word": _objects([word if is_text(word) else None for word in words]),
    }
    return pd.DataFrame(columns, index=steps.index)


def _objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _hours(steps: pd.DataFrame) -> list[str]:
    """The hour that each step was made in: what the game noted is of hours."""
    hours = pd.to_datetime(steps["timestamp_ms"], unit="ms", utc=True).map(lambda at: HOURLY.of(at).id)
    return hours.tolist()
