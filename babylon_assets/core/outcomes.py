"""What each step's trade turned out to be worth, as far as it is known.

A share of a prediction market is worth what it paid (1 or 0) less what it cost; a perpetual is worth its
return on a scale that ends at -1 and 1. What is not known yet, and what cannot be known, are values of their
own. These types are hindsight: no prompt or answer is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

State = Literal["final", "pending", "no_trade", "invalid", "unknown"]

#: A trade is recorded at most this long before or after the step that made it, in milliseconds.
MATCH_WITHIN_MS = 15 * 60 * 1000
_MINUTE_MS = 60_000
_OPENS_NOTHING = r"CLOSE|SELL"
_SURELY_OPENS = r"BUY|^OPEN_"
_Instants = "datetime64[ms, UTC]"


@dataclass(frozen=True)
class OutcomeTables:
    """What is known of a window's trades: a frame per source, with the columns and types declared here."""

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

    @classmethod
    def empty(cls) -> OutcomeTables:
        """Nothing is known."""
        specs = (cls.TRADES, cls.MARKETS, cls.PREDICTION_PRICES, cls.STOCK_PRICES, cls.MARKET_OUTCOMES)
        return cls(*(pd.DataFrame({c: pd.Series([], dtype=t) for c, t in spec.items()}) for spec in specs))


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
        steps: one row per step with `trajectories.STEP_COLUMNS`.
        as_of: what was resolved or priced later is not known yet; None takes all that the tables hold.
        horizon_minutes: a perpetual that its agent has not closed is valued at the first price this long
            after it.
        full_scale_percent: return of a perpetual, in percent, that is worth 1.

    Returns:
        A frame on the index of `steps`: `worth` (float, NaN when it is not known), `state` (see `State`), and
        the prices `entry` and `exit` per share or unit that worth was computed from (NaN where there is
        none).
    """
    work = _with_keys(steps)
    known = _known_by(tables, as_of)
    work = _matched(work, known.trades)
    result = pd.DataFrame({"worth": np.nan, "state": "unknown", "entry": np.nan, "exit": np.nan}, index=work.index)
    is_trade = work["is_trade"] & ~work["closes"]
    _put(result, _predictions(work[is_trade & (work["market_type"] == "prediction")], known))
    perps = work[is_trade & (work["market_type"] == "perp")]
    _put(result, _perps(perps, known, horizon_minutes * _MINUTE_MS, full_scale_percent))
    idle = ~is_trade & ~work["nameless"]
    result["worth"] = result["worth"].mask(idle, 0.0).mask(work["invalid"])
    result["state"] = result["state"].mask(idle, "no_trade").mask(work["invalid"], "invalid")
    return result.set_axis(steps.index)


def _with_keys(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps on a fresh index with what they traded.

    Adds `instrument` (market or ticker), `is_trade` (a position in it was opened) and `nameless` (one was opened, but
    the game does not say in what).
    """
    work = steps.reset_index(drop=True)[
        ["window", "agent_id", "timestamp_ms", "market_type", "market_id", "ticker", "side", "invalid"]
    ]
    work["instrument"] = steps["market_id"].where(steps["market_type"] == "prediction", steps["ticker"]).to_numpy()
    done = steps["success"].ne(False).to_numpy() & ~work["invalid"]
    opens = done & ~_kind_has(steps, _OPENS_NOTHING)
    work["is_trade"] = opens & work["market_type"].notna() & work["instrument"].notna()
    work["nameless"] = opens & work["instrument"].isna() & _kind_has(steps, _SURELY_OPENS)
    return work


def _kind_has(steps: pd.DataFrame, pattern: str) -> np.ndarray[Any, Any]:
    """Whether each step's action type, of which there are few, has the pattern."""
    codes, kinds = pd.factorize(steps["action_type"].astype("object"))
    found = pd.Series(kinds, dtype="object").str.upper().str.contains(pattern).to_numpy(dtype=bool)
    return found[codes]


def _known_by(tables: OutcomeTables, as_of: datetime | None) -> OutcomeTables:
    if as_of is None:
        return tables
    moment = pd.Timestamp(as_of)
    markets = tables.markets.copy()
    markets["resolved"] = markets["resolved"] & (markets["updated_at"] <= moment)
    return OutcomeTables(
        trades=tables.trades[tables.trades["executed_at"] <= moment],
        markets=markets,
        prediction_prices=tables.prediction_prices[tables.prediction_prices["created_at"] <= moment],
        stock_prices=tables.stock_prices[tables.stock_prices["timestamp"] <= moment],
        market_outcomes=tables.market_outcomes[tables.market_outcomes["created_at"] <= moment],
    )


def _matched(work: pd.DataFrame, trades: pd.DataFrame) -> pd.DataFrame:
    """Adds what the agent's trade nearest in time says: `price`, `traded_ms`, a missing side, `closes`."""
    opening, closing = _split_trades(trades)
    same_side = _nearest(work, opening, ["agent_id", "instrument", "side"])
    any_side = _nearest(work, opening, ["agent_id", "instrument"])
    lacks_side = work["side"].isna()
    work["side"] = work["side"].where(~lacks_side, any_side["trade_side"])
    for name in ("price", "traded_ms"):
        work[name] = same_side[name].where(~lacks_side, any_side[name])
    closed = _nearest(work, closing, ["agent_id", "instrument"])
    work["closes"] = any_side["price"].isna() & closed["price"].notna()
    return work


def _split_trades(trades: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trades that open a position and trades that close one, with times in milliseconds."""
    is_prediction = trades["market_type"].str.lower().str.startswith("prediction").fillna(False).astype(bool)
    flat = pd.DataFrame(
        {
            "agent_id": trades["agent_id"],
            "instrument": trades["market_id"].where(is_prediction, trades["ticker"]),
            "side": trades["side"].str.lower(),
            "trade_side": trades["side"].str.lower(),
            "price": trades["price"],
            "traded_ms": _milliseconds(trades["executed_at"]),
        }
    )
    closes = trades["action"].str.upper().str.contains(_OPENS_NOTHING).fillna(False).astype(bool)
    return flat[~closes], flat[closes]


def _nearest(work: pd.DataFrame, trades: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """For each step the nearest trade with the same keys within `MATCH_WITHIN_MS`; NaN if there is none."""
    wanted = work.loc[work["is_trade"], ["timestamp_ms", *keys]].dropna()
    columns = ["trade_side", "price", "traded_ms"]
    found = _as_of(wanted, trades, keys, "timestamp_ms", "traded_ms", columns, "nearest", MATCH_WITHIN_MS)
    return found.reindex(work.index)


def _as_of(
    left: pd.DataFrame,
    right: pd.DataFrame,
    keys: list[str],
    left_time: str,
    right_time: str,
    columns: list[str],
    direction: Literal["backward", "forward", "nearest"],
    tolerance: int | None = None,
    strictly: bool = False,
) -> pd.DataFrame:
    """`columns` of the row of `right` found for each row of `left`, on the index of `left`."""
    right = right.dropna(subset=[*keys, right_time])
    left, right = (frame.astype(dict.fromkeys(keys, "object")) for frame in (left, right))
    if left.empty or right.empty:
        return pd.DataFrame({c: pd.Series(dtype="object" if c == "trade_side" else "float64") for c in columns})
    keyed = right.assign(_time=right[right_time]).sort_values("_time", kind="stable")[[*keys, "_time", *columns]]
    asked = left[keys].assign(_time=left[left_time], _row=left.index).sort_values("_time", kind="stable")
    merged = pd.merge_asof(
        asked,
        keyed,
        on="_time",
        by=keys,
        direction=direction,
        tolerance=tolerance,
        allow_exact_matches=not strictly,
    )
    return merged.set_index("_row")[columns]


def _predictions(trades: pd.DataFrame, known: OutcomeTables) -> pd.DataFrame:
    """Worth per share: what the share of the side bought paid, less what it cost."""
    is_yes = trades["side"] == "yes"
    has_side = trades["side"].isin(["yes", "no"])
    entry = trades["price"].where(trades["price"].between(0, 1))
    entry = entry.fillna(_quoted(trades, known.prediction_prices, is_yes)).where(has_side)
    result, settled = _resolutions(trades["instrument"], known)
    paid = result.where(is_yes, 1 - result)
    state = pd.Series("unknown", index=trades.index, dtype="object")
    state[settled.isin(["pending"]) & entry.notna()] = "pending"
    state[settled.isin(["final"]) & entry.notna()] = "final"
    worth = (paid - entry).where(state == "final")
    return pd.DataFrame({"worth": worth, "state": state, "entry": entry, "exit": paid})


def _quoted(trades: pd.DataFrame, prices: pd.DataFrame, is_yes: pd.Series[Any]) -> pd.Series[Any]:
    """The last price of the side that was quoted before the step."""
    quotes = prices.rename(columns={"market_id": "instrument"}).assign(quoted_ms=_milliseconds(prices["created_at"]))
    columns = ["yes_price", "no_price"]
    last = _as_of(trades, quotes, ["instrument"], "timestamp_ms", "quoted_ms", columns, "backward").reindex(
        trades.index
    )
    price = last["yes_price"].where(is_yes, last["no_price"])
    return price.where(price.between(0, 1))


def _resolutions(market_ids: pd.Series[Any], known: OutcomeTables) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Per market id: 1.0 for YES, 0.0 for NO, else NaN; and whether that is final, pending or unknown."""
    markets = known.markets.drop_duplicates("market_id", keep="last").set_index("market_id")
    value = markets["resolution"].astype("Float64").where(markets["resolved"]).astype("float64")
    state = pd.Series(np.where(markets["resolved"], "unknown", "pending"), index=markets.index, dtype="object")
    state[value.notna()] = "final"
    noted = known.market_outcomes.dropna(subset=["market_id"]).drop_duplicates("market_id", keep="last")
    outcome = noted.set_index("market_id")["outcome"].str.upper()
    noted_value = outcome.map({"YES": 1.0, "NO": 0.0}).astype("float64")
    noted_state = pd.Series(np.where(noted_value.notna(), "final", "pending"), index=outcome.index, dtype="object")
    decided = state.index[state == "final"]
    use = noted_state.index[
        ~noted_state.index.isin(decided) & (noted_value.notna() | ~noted_state.index.isin(state.index))
    ]
    value = pd.concat([value.drop(use, errors="ignore"), noted_value.loc[use]])
    state = pd.concat([state.drop(use, errors="ignore"), noted_state.loc[use]])
    return market_ids.map(value).astype("float64"), market_ids.map(state).fillna("unknown").astype("object")


def _perps(trades: pd.DataFrame, known: OutcomeTables, horizon_ms: float, full_scale: float) -> pd.DataFrame:
    """The signed return up to the agent's own close, or to the price at the horizon, on a scale to +-1."""
    opened = trades.assign(opened_ms=trades["traded_ms"].fillna(trades["timestamp_ms"]).astype("int64"))
    stock = known.stock_prices.rename(columns={"ticker": "instrument"})
    stock = stock.assign(priced_ms=_milliseconds(stock["timestamp"]))[["instrument", "price", "priced_ms"]]
    stock = stock[stock["price"] > 0]
    entry = trades["price"].where(trades["price"] > 0)
    entry = entry.fillna(_price(opened, stock, "opened_ms", "backward"))
    opened["due_ms"] = (opened["opened_ms"] + horizon_ms).astype("int64")
    exit_price = _closing_price(opened, known.trades).fillna(_price(opened, stock, "due_ms", "forward"))
    change = 100 * (exit_price / entry - 1)
    noted = _noted_change(trades, known.market_outcomes).where(~trades["instrument"].isin(stock["instrument"]))
    change = change.fillna(noted)
    sign = trades["side"].map({"long": 1.0, "short": -1.0}).astype("float64")
    worth = (sign * change / full_scale).clip(-1, 1)
    state = pd.Series("pending", index=trades.index, dtype="object")
    state[worth.notna()] = "final"
    state[sign.isna() | (entry.isna() & noted.isna())] = "unknown"
    return pd.DataFrame({"worth": worth.where(state == "final"), "state": state, "entry": entry, "exit": exit_price})


def _price(
    opened: pd.DataFrame, stock: pd.DataFrame, time: str, direction: Literal["backward", "forward"]
) -> pd.Series[Any]:
    found = _as_of(opened, stock, ["instrument"], time, "priced_ms", ["price"], direction)
    return found["price"].reindex(opened.index)


def _closing_price(opened: pd.DataFrame, trades: pd.DataFrame) -> pd.Series[Any]:
    """The price of the agent's first close of the ticker after the opening."""
    _, closing = _split_trades(trades)
    closing = closing[closing["price"] > 0]
    keys = ["agent_id", "instrument"]
    found = _as_of(opened, closing, keys, "opened_ms", "traded_ms", ["price"], "forward", strictly=True)
    return found["price"].reindex(opened.index)


def _noted_change(trades: pd.DataFrame, noted: pd.DataFrame) -> pd.Series[Any]:
    """The change in percent that the game noted for the ticker in the trade's own window."""
    notes = noted.dropna(subset=["ticker", "change_percent"]).drop_duplicates(["window", "ticker"], keep="last")
    change = notes.set_index(["window", "ticker"])["change_percent"]
    wanted = pd.MultiIndex.from_arrays([trades["window"], trades["instrument"]])
    return pd.Series(change.reindex(wanted).to_numpy(), index=trades.index, dtype="float64")


def _put(result: pd.DataFrame, part: pd.DataFrame) -> None:
    for column in part.columns:
        result.loc[part.index, column] = part[column]


def _milliseconds(times: pd.Series[Any]) -> pd.Series[Any]:
    """Epoch milliseconds as int64."""
    milliseconds: pd.Series[Any] = times.dt.as_unit("ms").astype("int64")
    return milliseconds
