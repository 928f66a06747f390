"""What each step's trade turned out to be worth, as far as it is known.

A share of a prediction market is worth what it paid (1 or 0) less what it cost; a perpetual is worth its
return on a scale that ends at -1 and 1. What is not known yet, and what cannot be known, are values of their
own. These types are hindsight: no prompt or answer is made from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd

from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.babylon.matching import Array, InTime, encoded, mapped, paired, take_rows

State = Literal["final", "pending", "no_trade", "invalid", "unknown"]

#: A trade is recorded at most this long before or after the step that made it, in milliseconds.
MATCH_WITHIN_MS = 15 * 60 * 1000
_MINUTE_MS = 60_000
_OPENS_NOTHING = re.compile(r"CLOSE|SELL")
_SURELY_OPENS = re.compile(r"BUY|^OPEN_")
_NEEDED = (
    *("window", "agent_id", "timestamp_ms", "action_type", "market_type", "market_id", "ticker", "side"),
    *("success", "invalid"),
)
_GONE = (np.nan, "unknown")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Instants = "datetime64[ms, UTC]"


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

    trades: pd.DataFrame
    markets: pd.DataFrame
    prediction_prices: pd.DataFrame
    stock_prices: pd.DataFrame
    market_outcomes: pd.DataFrame
    windows: WindowGrid = HOURLY

    @classmethod
    def empty(cls) -> OutcomeTables:
        """Nothing is known."""
        specs = (cls.TRADES, cls.MARKETS, cls.PREDICTION_PRICES, cls.STOCK_PRICES, cls.MARKET_OUTCOMES)
        trades, markets, quotes, stock, noted = (
            pd.DataFrame({c: pd.Series([], dtype=t) for c, t in spec.items()}) for spec in specs
        )
        return cls(trades, markets, quotes, stock, noted)


def trade_worth(
    steps: pd.DataFrame,
    tables: OutcomeTables,
    *,
    as_of: datetime | None = None,
    horizon_minutes: float = 60,
    full_scale_percent: float = 10.0,
) -> pd.DataFrame:
    """Say for each step what its trade was worth.

    Args:
        steps: one row per step with `frames.STEP_COLUMNS`.
        as_of: what was resolved or priced later is not known yet; None takes all that the tables hold.
        horizon_minutes: a perpetual that its agent has not closed is valued at the first price this long
            after it.
        full_scale_percent: return of a perpetual, in percent, that is worth 1.

    Returns:
        A frame on the index of `steps`: `worth` (float, NaN when it is not known), `state` (see `State`), and
        the prices `entry` and `exit` per share or unit that worth was computed from (NaN where there is
        none).
    """
    known = _Known.of(tables, as_of)
    work = _Work.of(steps if tables.windows == HOURLY else _placed_in_hours(steps), known)
    worth, entry, exit_price = (np.full(len(steps), np.nan) for _ in range(3))
    state = np.full(len(steps), "unknown", dtype=object)
    opened = work.is_trade & ~work.closes
    state[~opened & ~work.nameless], worth[~opened & ~work.nameless] = "no_trade", 0.0
    for kind in ("prediction", "perp"):
        rows = np.flatnonzero(opened & (work.market_type == kind))
        if not len(rows):
            continue
        trades = _Work(*(column[rows] for column in work))
        if kind == "prediction":
            valued = _predictions(trades, known)
        else:
            valued = _perps(trades, known, horizon_minutes * _MINUTE_MS, full_scale_percent)
        worth[rows], state[rows], entry[rows], exit_price[rows] = valued
    worth[work.invalid], state[work.invalid] = np.nan, "invalid"
    return pd.DataFrame({"worth": worth, "state": state, "entry": entry, "exit": exit_price}, index=steps.index)


class _Trades(NamedTuple):
    """Trades that all open a position, or all close one; times in milliseconds."""

    agent: Array
    instrument: Array
    side: Array
    price: Array
    at: Array


class _Quotes(NamedTuple):
    """Prices of instruments: of YES and NO of a market, or twice that of a ticker."""

    instrument: Array
    at: Array
    price: Array
    other: Array


def _placed_in_hours(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with the hour that each was made in as its window: what the game noted is of hours."""
    hours = pd.to_datetime(steps["timestamp_ms"], unit="ms", utc=True).map(lambda at: HOURLY.of(at).id)
    return steps.assign(window=hours)


class _Known(NamedTuple):
    """What is known at a moment.

    Attributes:
        resolutions: by market id, 1.0 for YES, 0.0 for NO, NaN where it is not known, and a `State`.
        changes: by window and ticker, the change in percent that the game noted.
    """

    opening: _Trades
    closing: _Trades
    quotes: _Quotes
    stock: _Quotes
    resolutions: dict[str, tuple[float, str]]
    changes: dict[tuple[str, str], float]

    @classmethod
    def of(cls, tables: OutcomeTables, as_of: datetime | None) -> _Known:
        moment = None if as_of is None else (as_of - _EPOCH) // timedelta(milliseconds=1)
        opening, closing = _split_trades(_until(tables.trades, "executed_at", moment))
        quotes = _until(tables.prediction_prices, "created_at", moment)
        stock = _until(tables.stock_prices, "timestamp", moment)
        stock = stock[stock["price"].to_numpy() > 0] if len(stock) else stock
        noted = _until(tables.market_outcomes, "created_at", moment)
        return cls(
            opening,
            closing,
            _Quotes(*_columns(quotes, "market_id", "created_at", "yes_price", "no_price")),
            _Quotes(*_columns(stock, "ticker", "timestamp", "price", "price")),
            _resolutions(tables.markets, noted, moment),
            _changes(noted),
        )


class _Work(NamedTuple):
    """Steps with what they traded, a row each.

    Attributes:
        instrument: market or ticker.
        is_trade, nameless: a position was opened in it; one was opened, but the game does not say in what.
        price, traded_ms: what the agent's trade nearest in time says, NaN where there is none; `side` is that of this
            trade where the step has none.
        closes: the trade turns out to have closed a position.
    """

    window: Array
    agent: Array
    at: Array
    market_type: Array
    instrument: Array
    side: Array
    invalid: Array
    is_trade: Array
    nameless: Array
    price: Array
    traded_ms: Array
    closes: Array

    @classmethod
    def of(cls, steps: pd.DataFrame, known: _Known) -> _Work:
        column = {name: steps[name].to_numpy() for name in _NEEDED}
        market_type, invalid = column["market_type"], column["invalid"].astype(bool)
        instrument = np.where(market_type == "prediction", column["market_id"], column["ticker"])
        opens = (column["success"] != False) & ~invalid & ~_kind_has(column["action_type"], _OPENS_NOTHING)  # noqa: E712
        named = pd.notna(instrument)
        is_trade = opens & pd.notna(market_type) & named
        nameless = opens & ~named & _kind_has(column["action_type"], _SURELY_OPENS)
        agent, at, side = column["agent_id"], column["timestamp_ms"], column["side"].copy()
        rows = np.flatnonzero(is_trade)
        trades = _Trades(agent[rows], instrument[rows], side[rows], at[rows], at[rows])
        price, traded_ms, closes = np.full(len(at), np.nan), np.full(len(at), np.nan), np.zeros(len(at), dtype=bool)
        side[rows], price[rows], traded_ms[rows], closes[rows] = _matched(trades, known)
        return cls(
            *(column["window"], agent, at, market_type, instrument, side, invalid),
            *(is_trade, nameless, price, traded_ms, closes),
        )


def _kind_has(kinds: Array, pattern: re.Pattern[str]) -> Array:
    """Whether each action type, of which there are few, has the pattern; none where there is no type."""
    return mapped(kinds, lambda kind: pattern.search(kind.upper()) is not None, False).astype(bool)


def _until(frame: pd.DataFrame, time: str, moment: int | None) -> pd.DataFrame:
    return frame if moment is None or frame.empty else frame[_milliseconds(frame[time]) <= moment]


def _columns(frame: pd.DataFrame, instrument: str, time: str, *prices: str) -> list[Array]:
    return [
        frame[instrument].to_numpy(dtype=object),
        _milliseconds(frame[time]),
        *(frame[name].to_numpy(dtype="float64") for name in prices),
    ]


def _split_trades(trades: pd.DataFrame) -> tuple[_Trades, _Trades]:
    """Trades that open a position and trades that close one."""
    is_prediction = mapped(
        trades["market_type"].to_numpy(), lambda kind: kind.lower().startswith("prediction"), False
    ).astype(bool)
    instrument = np.where(is_prediction, trades["market_id"].to_numpy(), trades["ticker"].to_numpy())
    flat = _Trades(
        trades["agent_id"].to_numpy(dtype=object),
        instrument,
        mapped(trades["side"].to_numpy(), str.lower, None),
        trades["price"].to_numpy(dtype="float64"),
        _milliseconds(trades["executed_at"]),
    )
    closes = _kind_has(trades["action"].to_numpy(), _OPENS_NOTHING)
    return _Trades(*(column[~closes] for column in flat)), _Trades(*(column[closes] for column in flat))


def _matched(trades: _Trades, known: _Known) -> tuple[Array, Array, Array, Array]:
    """Side, price and time of the agent's trade nearest in time to each step, and whether that closed a position.

    The trade has the step's side; of a step without one, any.
    """
    opening, shut, lacks_side = known.opening, known.closing, pd.isna(trades.side)
    agents, _ = encoded(trades.agent, opening.agent, shut.agent)
    instruments, count = encoded(trades.instrument, opening.instrument, shut.instrument)
    keys, open_keys, shut_keys = (paired(*pair, count) for pair in zip(agents, instruments, strict=True))
    (side, open_side), sides = encoded(trades.side, opening.side)
    same = InTime(paired(open_keys, open_side, sides), opening.at)
    same_side = same.nearest(paired(keys, side, sides), trades.at, MATCH_WITHIN_MS)
    any_side = InTime(open_keys, opening.at).nearest(keys, trades.at, MATCH_WITHIN_MS)
    match = np.where(lacks_side, any_side, same_side)
    sided = np.where(lacks_side, take_rows(opening.side, any_side, None), trades.side)
    closing = InTime(shut_keys, shut.at).nearest(keys, trades.at, MATCH_WITHIN_MS)
    none_opened = np.isnan(take_rows(opening.price, any_side))
    closes = none_opened & ~np.isnan(take_rows(shut.price, closing))
    return sided, take_rows(opening.price, match), take_rows(opening.at.astype("float64"), match), closes


def _predictions(trades: _Work, known: _Known) -> tuple[Array, Array, Array, Array]:
    """Worth per share, state, entry and exit: what the share of the side bought paid, less what it cost."""
    is_yes = trades.side == "yes"
    has_side = is_yes | (trades.side == "no")
    entry = np.where(_is_price(trades.price), trades.price, _quoted(trades, known.quotes, is_yes))
    entry[~has_side] = np.nan
    settled = mapped(trades.instrument, lambda market: known.resolutions.get(market, _GONE), _GONE)
    result = np.array([value for value, _ in settled], dtype="float64")
    paid = np.where(is_yes, result, 1 - result)
    state = np.array([resolution for _, resolution in settled], dtype=object)
    state[np.isnan(entry)] = "unknown"
    return np.where(state == "final", paid - entry, np.nan), state, entry, paid


def _quoted(trades: _Work, quotes: _Quotes, is_yes: Array) -> Array:
    """The last price of the side that was quoted before the step."""
    (keys, quoted), _ = encoded(trades.instrument, quotes.instrument)
    last = InTime(quoted, quotes.at).last(keys, trades.at)
    price = np.where(is_yes, take_rows(quotes.price, last), take_rows(quotes.other, last))
    return np.where(_is_price(price), price, np.nan)


def _is_price(price: Array) -> Array:
    """Whether a share may cost that; NaN is no price."""
    is_price: Array = (price >= 0) & (price <= 1)
    return is_price


def _resolutions(markets: pd.DataFrame, noted: pd.DataFrame, moment: int | None) -> dict[str, tuple[float, str]]:
    """Markets as far as they are resolved; where they are not, or are gone, the last note of them that says more."""
    resolutions: dict[str, tuple[float, str]] = {}
    resolved = markets["resolved"].to_numpy(dtype=bool)
    if moment is not None and len(markets):
        resolved = resolved & (_milliseconds(markets["updated_at"]) <= moment)
    columns = markets["market_id"].tolist(), resolved.tolist(), markets["resolution"].tolist()
    for market, done, resolution in zip(*columns, strict=True):
        value = float(resolution) if done and not pd.isna(resolution) else np.nan
        resolutions[market] = (value, "pending" if not done else "final" if value == value else "unknown")
    notes = zip(noted["market_id"].tolist(), noted["outcome"].tolist(), strict=True)
    last = {market: outcome for market, outcome in notes if isinstance(market, str)}
    for market, outcome in last.items():
        value = {"YES": 1.0, "NO": 0.0}.get(outcome.upper() if isinstance(outcome, str) else "", np.nan)
        known = resolutions.get(market, _GONE)
        if known[1] != "final" and (value == value or market not in resolutions):
            resolutions[market] = (value, "final" if value == value else "pending")
    return resolutions


def _changes(noted: pd.DataFrame) -> dict[tuple[str, str], float]:
    columns = (noted[name].tolist() for name in ("window", "ticker", "change_percent"))
    return {
        (window, ticker): change
        for window, ticker, change in zip(*columns, strict=True)
        if isinstance(ticker, str) and change == change
    }


def _perps(trades: _Work, known: _Known, horizon_ms: float, full_scale: float) -> tuple[Array, Array, Array, Array]:
    """The signed return up to the agent's own close, or to the price at the horizon, on a scale to +-1."""
    stock = known.stock
    (keys, stocked), _ = encoded(trades.instrument, stock.instrument)
    prices = InTime(stocked, stock.at)
    opened = np.where(np.isnan(trades.traded_ms), trades.at, trades.traded_ms).astype(np.int64)
    quoted = take_rows(stock.price, prices.last(keys, opened))
    entry = np.where(trades.price > 0, trades.price, quoted)
    due = (opened + horizon_ms).astype(np.int64)
    later = take_rows(stock.price, prices.first(keys, due))
    closed = _closing_price(trades, opened, known.closing)
    exit_price = np.where(np.isnan(closed), later, closed)
    noted = _recorded_changes(trades, known)
    change = 100 * (exit_price / entry - 1)
    change = np.where(np.isnan(change), noted, change)
    sign = np.where(trades.side == "long", 1.0, np.where(trades.side == "short", -1.0, np.nan))
    worth = np.clip(sign * change / full_scale, -1, 1)
    state = np.where(np.isnan(worth), "pending", "final").astype(object)
    state[np.isnan(sign) | (np.isnan(entry) & np.isnan(noted))] = "unknown"
    return np.where(state == "final", worth, np.nan), state, entry, exit_price


def _closing_price(trades: _Work, opened: Array, closing: _Trades) -> Array:
    """The price of the agent's first close of the ticker after the opening."""
    closing = _Trades(*(column[closing.price > 0] for column in closing))
    agents, _ = encoded(trades.agent, closing.agent)
    instruments, count = encoded(trades.instrument, closing.instrument)
    keys, closed = (paired(*pair, count) for pair in zip(agents, instruments, strict=True))
    return take_rows(closing.price, InTime(closed, closing.at).first(keys, opened, strictly=True))


def _recorded_changes(trades: _Work, known: _Known) -> Array:
    """The change in percent that the game noted for the ticker in the trade's own window, where it keeps no prices."""
    priced = set(known.stock.instrument)
    pairs = zip(trades.window, trades.instrument, strict=True)
    changes = [np.nan if pair[1] in priced else known.changes.get(pair, np.nan) for pair in pairs]
    return np.array(changes, dtype="float64")


def _milliseconds(times: pd.Series[Any]) -> Array:
    """Epoch milliseconds as int64."""
    milliseconds: Array = pd.DatetimeIndex(times).as_unit("ms").asi8
    return milliseconds
