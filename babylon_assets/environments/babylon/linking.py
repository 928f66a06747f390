"""Which of the game's own trades each step made: a trade is of one step, and a step made one trade.

The record names no step in a trade. A trade is its step's when agent, market, side and time agree; of several the one
with the step's own amount, then the nearest in time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from babylon_assets.environments.babylon.words import MarketType

#: A trade is recorded at most this long before or after the step that made it, in milliseconds.
MATCH_WITHIN_MS = 15 * 60 * 1000
#: What an order without an amount stakes, in dollars.
DEFAULT_STAKE = 100.0


class GameTrade(NamedTuple):
    """A trade of the game's own record; the amount is what an entry cost, what a sale brought, or a position's size.

    Attributes:
        closes: it ends a position, or a part of one.
        price: dollars per share or unit.
        word: what of it is not known, if anything.
    """

    agent: str
    market_type: MarketType | None
    instrument: str | None
    side: str | None
    closes: bool
    amount: float
    price: float
    pnl: float
    at: int
    word: str | None = None


class StepOrder(NamedTuple):
    """What a step traded, as far as the step says it.

    Attributes:
        row: its place among the steps.
        closes: None where the step does not say whether it ends a position.
        since, until: when its trade may have been executed, in epoch milliseconds, `until` left out.
    """

    row: int
    agent: str
    market_type: MarketType
    instrument: str
    side: str | None
    closes: bool | None
    amount: float
    at: int
    since: int
    until: int


_Key = tuple[str, str | None, str | None]


class TradeBook:
    """Trades by agent and instrument, in the order of time."""

    def __init__(self, trades: Sequence[GameTrade]) -> None:
        self.trades = trades
        self._places: dict[_Key, list[int]] = defaultdict(list)
        for place in sorted(range(len(trades)), key=lambda place: trades[place].at):
            trade = trades[place]
            self._places[trade.agent, trade.market_type, trade.instrument].append(place)
        self._times = {key: [trades[place].at for place in places] for key, places in self._places.items()}

    def of(self, agent: str, market_type: str | None, instrument: str | None) -> list[GameTrade]:
        """An agent's trades in an instrument."""
        return [self.trades[place] for place in self._places.get((agent, market_type, instrument), ())]

    def between(self, key: _Key, since: int, until: int) -> list[int]:
        """The places of the trades of a key that were executed from `since` up to, without it, `until`."""
        times = self._times.get(key, [])
        return self._places.get(key, [])[bisect_left(times, since) : bisect_left(times, until)]

    def unknown_word(self, order: StepOrder) -> str | None:
        """A word that is not known, of a trade that may be the order's."""
        for market_type in ("prediction", "perp", None):
            places = self.between((order.agent, market_type, order.instrument), order.since, order.until)
            if word := next((word for place in places if (word := self.trades[place].word)), None):
                return word
        return None


def link_trades(orders: Iterable[StepOrder], book: TradeBook) -> dict[int, int]:
    """The place of each order's trade, by the order's row; an order whose trade is not there is left out."""
    pairs = sorted(pair for order in orders for pair in _pairs(order, book))
    linked: dict[int, int] = {}
    taken: set[int] = set()
    for *_, row, place in pairs:
        if row not in linked and place not in taken:
            linked[row] = place
            taken.add(place)
    return linked


def _pairs(order: StepOrder, book: TradeBook) -> Iterable[tuple[bool, bool, int, int, int]]:
    """Each trade that may be the order's with how badly it fits: by its direction, its amount, and its time."""
    key = (order.agent, order.market_type, order.instrument)
    for place in book.between(key, order.since, order.until):
        trade = book.trades[place]
        if trade.word or (order.side and trade.side and order.side != trade.side):
            continue
        if order.closes is not None and order.closes != trade.closes:
            continue
        doubtful = order.closes is None and trade.closes
        differs = not trade.closes and abs(trade.amount - order.amount) > 1e-9
        yield doubtful, differs, abs(trade.at - order.at), order.row, place
