"""Answers to the game's recorded prompts: what each asks for, as the game would read it, and what it was worth.

Nobody carried these orders out. They are valued by the record's quotes, resolutions and positions, as if they had moved
no price: a bet enters at the last quote before its step, a perpetual likewise, and is held to the end or the horizon.
An order on the other side of an open perpetual is valued as one of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
import pandas as pd

from babylon_assets.config.settings import Settings
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.babylon.decoding import read_order
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.babylon.instruments import Instruments
from babylon_assets.environments.babylon.linking import DEFAULT_STAKE, TradeBook
from babylon_assets.environments.babylon.market_record import (
    is_text,
    milliseconds_of,
    perp_holdings,
    pool_holdings,
    read_game_trades,
    resolutions_of,
    share_quotes,
    stock_quotes,
    until,
)
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.environments.babylon.perps import SIGNS, PerpRules
from babylon_assets.environments.babylon.pool_markets import AFTER_FEE, PoolMarkets
from babylon_assets.environments.babylon.quotes import Quotes
from babylon_assets.environments.babylon.rules import GameRules
from babylon_assets.environments.babylon.schema import RecordedGame, Schema
from babylon_assets.environments.babylon.share_markets import Resolutions
from babylon_assets.environments.babylon.stakes import LEAST_STAKE, UNKNOWN, Valued, is_stake, weight_stake
from babylon_assets.environments.babylon.steps import Parameters, Result, as_number
from babylon_assets.environments.babylon.words import read_action
from babylon_assets.environments.base import Connection

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_INVALID = Valued(None, "invalid")
_HELD = Valued(0.0, "no_trade")


class RecordReader(Protocol):
    """What is needed of the environment whose record says what an order was worth."""

    game: RecordedGame
    settings: Settings

    def schema(self, conn: Connection) -> Schema: ...
    def read_outcomes(self, conn: Connection, window: str, steps: pd.DataFrame) -> OutcomeTables: ...


class GameAnswers:
    """Reads and values answers, as `environments.base.AnswerReader` has it."""

    version = "1"

    def __init__(self, environment: RecordReader) -> None:
        self._environment, self._rules = environment, environment.game.rules

    def parse(self, text: str, _messages: Sequence[Message], step: StepFacts) -> StepFacts:
        """The action of an answer: its first JSON object, with an action and what that is about."""
        fields = read_json(text, whole=not self._rules.winners_share)
        name, parameters = _action_of(fields)
        kind = read_action(name).kind
        order = read_order(name, parameters, Result())
        is_order = kind == "trade" and order.word is None and order.is_complete
        return make_step(
            step.step,
            step.timestamp_ms,
            step.moment_ms,
            step.detail.get("balance"),
            step.detail.get("pnl"),
            name or "none",
            *order.detail,
            True,
            None,
            not (kind in ("hold", "social") or is_order),
            order.closes,
        )

    def value(self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None) -> pd.DataFrame:
        """The worth and state of each answered step."""
        names = Instruments.read(conn, steps, self._environment.schema(conn))
        named = steps.assign(
            market_id=steps["market_id"].map(names.market).astype("object"),
            ticker=steps["ticker"].map(names.ticker).astype("object"),
        )
        tables = self._environment.read_outcomes(conn, window, named)
        rewards = self._environment.settings.rewards
        scale = (self._horizon_ms(), rewards.perp_full_scale_percent)
        prices = _Prices.of(tables, self._rules, as_of, scale, self._price)
        valued = [
            prices.value(row, lost)
            for row, lost in zip(named.to_dict("records"), _lost_names(steps, named), strict=True)
        ]
        worth = [float("nan") if value.worth is None else value.worth for value in valued]
        return pd.DataFrame({"worth": worth, "state": [value.state for value in valued]}, index=steps.index)

    def _price(self, likely: float) -> float:
        """What a share costs when its side is quoted at `likely`."""
        return likely / (1 - likely)

    def _horizon_ms(self) -> float:
        """How long after its step a perpetual is valued."""
        return 60_000.0 * self._environment.settings.rewards.perp_horizon_minutes


def read_json(text: str, *, whole: bool) -> Mapping[str, Any]:
    """The object in an answer, without what was thought before it; empty where there is none.

    Args:
        whole: it ends at the last brace of the answer, as Babylon reads it; else where its own ends, as Feed does.
    """
    text = _THINKING.sub("", text)
    start = text.find("{")
    if start < 0:
        return {}
    try:
        if whole:
            value = json.loads(text[start : text.rfind("}") + 1])
        else:
            value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _action_of(fields: Mapping[str, Any]) -> tuple[str, Parameters]:
    """The action's name and what it is about; Babylon's own form has a `trade` with a type, a market and an action."""
    name = fields.get("action") or fields.get("actionType") or ""
    about = fields.get("parameters") or fields.get("trade") or fields
    if not isinstance(name, str) or not isinstance(about, dict):
        return "", Parameters()
    if isinstance(fields.get("trade"), dict):
        verb = about.get("action")
        about = {"marketType": about.get("type"), "marketId": about.get("market"), "side": verb, **about}
        name = verb if name.lower() == "trade" and isinstance(verb, str) else name
    texts = {field: about.get(field) for field in ("marketType", "marketId", "ticker", "side", "outcome", "direction")}
    numbers = {field: as_number(about.get(field)) for field in ("amount", "size", "shares", "quantity")}
    known = {field: value for field, value in texts.items() if isinstance(value, str) and value}
    return name[:200], msgspec.convert({**known, **{k: v for k, v in numbers.items() if v is not None}}, Parameters)


def _lost_names(steps: pd.DataFrame, named: pd.DataFrame) -> list[bool]:
    """Whether each step names a market or a company that the game does not have."""
    return [
        (is_text(asked_market) and not is_text(market)) or (is_text(asked_ticker) and not is_text(ticker))
        for asked_market, market, asked_ticker, ticker in zip(
            steps["market_id"], named["market_id"], steps["ticker"], named["ticker"], strict=True
        )
    ]


class _Prices:
    """What the record says of the markets at the time of an order, and afterwards."""

    def __init__(
        self,
        rules: GameRules,
        book: TradeBook,
        shares: Quotes,
        resolutions: Resolutions,
        price: Callable[[float], float],
    ) -> None:
        self._price = price
        self._rules, self._book, self._shares, self._resolutions = rules, book, shares, resolutions
        self._pool = PoolMarkets(book, shares, resolutions, ())
        self._perps = PerpRules(horizon_ms=0, full_scale_percent=1, quotes=Quotes(()))

    @classmethod
    def of(
        cls,
        tables: OutcomeTables,
        rules: GameRules,
        as_of: datetime | None,
        scale: tuple[float, float],
        price: Callable[[float], float],
    ) -> _Prices:
        moment = milliseconds_of(as_of)
        notes = until(tables.market_outcomes, "created_at", moment)
        resolutions = resolutions_of(tables.markets, notes if rules.notes_are_outcomes else notes[:0], moment)
        book = TradeBook(read_game_trades(tables.trades, as_of))
        shares = share_quotes(until(tables.prediction_prices, "created_at", moment))
        prices = cls(rules, book, shares, resolutions, price)
        prices._pool = PoolMarkets(book, prices._shares, resolutions, pool_holdings(tables.positions, moment))
        prices._perps = PerpRules(
            horizon_ms=scale[0],
            full_scale_percent=scale[1],
            quotes=stock_quotes(until(tables.stock_prices, "timestamp", moment)),
            holdings=perp_holdings(tables.perp_positions, moment),
        )
        return prices

    def value(self, step: Mapping[Any, Any], is_lost: bool) -> Valued:
        kind = read_action(step["action_type"]).kind
        if step["invalid"] or is_lost:
            return _INVALID
        if kind != "trade":
            return _HELD if kind == "hold" else UNKNOWN
        amount = step["amount"] if step["amount"] == step["amount"] and step["amount"] else DEFAULT_STAKE
        balance = step["balance"]
        if not is_stake(amount) or (not self._rules.winners_share and balance == balance and amount > balance):
            return _INVALID
        if step["closes"] is True and not self._rules.winners_share:
            return _HELD  # Babylon offers to sell and to close, and never does
        value = self._value_bet if step["market_type"] == "prediction" else self._value_perp
        return value(step, float(amount))

    def _value_bet(self, step: Mapping[Any, Any], amount: float) -> Valued:
        market, side, at = step["market_id"], step["side"], int(step["timestamp_ms"])
        likely = self._shares.last(f"{side} {market}", at)
        if likely is None or not 0 < likely < 1:
            return UNKNOWN
        price = self._price(likely)
        if step["closes"] is True:
            cost = self._pool.average_cost(step["agent_id"], market, side, at)
            return _INVALID if cost is None else Valued.final(AFTER_FEE * price / cost - 1, cost, price)
        result, state = self._resolutions.get(market, (None, "unknown"))
        if result is None:
            return Valued(None, state, price)
        wins = result == (side == "yes")
        if not self._rules.winners_share:
            return Valued.final((wins - price) * weight_stake(amount), price, float(wins))
        paid = self._pool.paid_per_share(market, side, price) if wins else 0.0
        if paid is None:
            return UNKNOWN
        return Valued.final((AFTER_FEE * paid / price - 1) * amount / max(amount, LEAST_STAKE), price, paid)

    def _value_perp(self, step: Mapping[Any, Any], amount: float) -> Valued:
        ticker, at = step["ticker"], int(step["timestamp_ms"])
        now = self._perps.quotes.last(ticker, at)
        if now is None:
            return UNKNOWN
        if step["closes"] is True:
            return self._value_close(step["agent_id"], ticker, at, now, amount)
        later = self._perps.quotes.first(ticker, int(at + self._perps.horizon_ms))
        if later is None:
            return Valued(None, "pending", now)
        return Valued.final(self._perps.worth(SIGNS[step["side"]] * (later / now - 1), amount), now, later)

    def _value_close(self, agent: str, ticker: str, at: int, now: float, amount: float) -> Valued:
        """Against the entry of the position that the agent had then; without one there is nothing to close."""
        for row in self._perps.holdings:
            is_open = row.opened <= at and (row.closed is None or row.closed > at)
            if row.agent == agent and row.ticker == ticker and is_open and row.entry > 0:
                returned = SIGNS[row.side] * (now / row.entry - 1)
                return Valued.final(self._perps.worth(returned, amount, row.leverage), row.entry, now)
        return _INVALID
