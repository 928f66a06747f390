"""Worth of an order in a perpetual: the signed return up to its close, or to the price at the horizon.

A return of `full_scale_percent` is worth 1. An open position is valued at the first quote `horizon_ms` after its trade.
A position that was open before is entered at the price that its own row says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from babylon_assets.environments.babylon.linking import GameTrade, StepOrder, TradeBook
from babylon_assets.environments.babylon.quotes import Quotes, believed_perp_price
from babylon_assets.environments.babylon.stakes import UNKNOWN, Valued, is_stake, weight_stake

SIGNS = {"long": 1.0, "short": -1.0}
#: A position's own row is written within this many milliseconds of its trade's.
TOGETHER_MS = 5000
#: Dollars of a position's size that are rounding.
SIZE_ROUNDING = 0.01


class PerpHolding(NamedTuple):
    """A row of `PerpPosition`; times in epoch milliseconds, `closed` None while it is open.

    Attributes:
        averaged: orders after the first added to it, so that its entry is an average.
    """

    agent: str
    ticker: str
    side: str
    entry: float
    size: float
    leverage: float
    opened: int
    closed: int | None
    averaged: bool = False


@dataclass(frozen=True, slots=True)
class PerpRules:
    """The scale of worth, and what is known of perpetuals.

    Attributes:
        changes: percent by which a ticker moved in a window, by window and ticker, where it was never quoted.
    """

    horizon_ms: float
    full_scale_percent: float
    quotes: Quotes
    holdings: Sequence[PerpHolding] = ()
    changes: Mapping[tuple[str, str], float] | None = None

    def worth(self, returned: float, stake: float, leverage: float = 1.0) -> float:
        """What a return, as a share of the price, of a stake is worth."""
        return 100 * returned / self.full_scale_percent * leverage * weight_stake(stake)


def value_perp(order: StepOrder, trade: GameTrade, book: TradeBook, rules: PerpRules, window: str) -> Valued:
    """The worth of an order where each trade opens a position of its own, and its price is that of the fill."""
    sign = SIGNS.get(trade.side or order.side or "")
    price = believed_perp_price(trade.price, rules.quotes, order.instrument, trade.at, trade.at, closes=trade.closes)
    if sign is None or price is None or not is_stake(trade.amount):
        return UNKNOWN
    if trade.closes:
        return value_close(trade, price, _average_entry(trade, book), sign, rules)
    noted = _find_noted_change(order.instrument, window, rules)
    exit_price = _own_exit(trade, book, rules) or rules.quotes.first(order.instrument, int(trade.at + rules.horizon_ms))
    if exit_price is None and noted is None:
        return Valued(None, "pending", price)
    change = 100 * (exit_price / price - 1) if exit_price is not None else noted or 0.0
    return Valued.final(sign * change / rules.full_scale_percent * weight_stake(trade.amount), price, exit_price)


def _own_exit(opening: GameTrade, book: TradeBook, rules: PerpRules) -> float | None:
    """The price of the agent's first close of the ticker after an opening; None without one that is believed."""
    for trade in book.of(opening.agent, "perp", opening.instrument):
        if trade.closes and trade.at > opening.at and trade.price > 0:
            ticker = opening.instrument or ""
            return believed_perp_price(trade.price, rules.quotes, ticker, trade.at, trade.at, closes=True)
    return None


def _average_entry(closing: GameTrade, book: TradeBook) -> float | None:
    """The average price of the openings since the close before, by size."""
    earlier = [trade for trade in book.of(closing.agent, "perp", closing.instrument) if trade.at < closing.at]
    last_close = max((trade.at for trade in earlier if trade.closes), default=-1)
    opened = [trade for trade in earlier if not trade.closes and trade.at > last_close and is_stake(trade.amount)]
    size = sum(trade.amount for trade in opened)
    return sum(trade.amount * trade.price for trade in opened) / size if size else None


def value_close(closing: GameTrade, price: float, entry: float | None, sign: float, rules: PerpRules) -> Valued:
    """What a close realised against the entry; by the trade's own profit where that is not known."""
    if entry is not None and entry > 0:
        return Valued.final(rules.worth(sign * (price / entry - 1), closing.amount), entry, price)
    if isfinite(closing.pnl):
        return Valued.final(rules.worth(closing.pnl / closing.amount, closing.amount), None, price)
    return UNKNOWN


def _find_noted_change(ticker: str, window: str, rules: PerpRules) -> float | None:
    if rules.changes is None or rules.quotes.knows(ticker):
        return None
    return rules.changes.get((window, ticker))
