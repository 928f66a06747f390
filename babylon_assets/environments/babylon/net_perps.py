"""Worth of an order in Feed's perpetuals, where an agent has one position a ticker.

An order on the side of the open position adds to it; one on the other side reduces it, and opens a position with what
is left of it. The price of a trade that opens is not that of its fill: the entry is that of the position's own row
where one order made it, else the last quote before the step. A trade's own effect on the price comes after that quote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from babylon_assets.environments.babylon.linking import GameTrade, StepOrder, TradeBook
from babylon_assets.environments.babylon.perps import (
    SIGNS,
    SIZE_ROUNDING,
    TOGETHER_MS,
    PerpHolding,
    PerpRules,
    value_close,
)
from babylon_assets.environments.babylon.quotes import believed_perp_price
from babylon_assets.environments.babylon.stakes import UNKNOWN, Valued, is_stake


@dataclass
class _Lot:
    """What one order opened, with what of it was closed and what that returned, in dollars."""

    sign: float
    entry: float
    left: float
    leverage: float = 1.0
    returned: float = 0.0
    exit: float | None = None

    def reduce(self, size: float, price: float) -> float:
        """Close a part at a price; says what it returned."""
        returned = size * self.sign * (price / self.entry - 1)
        self.left -= size
        self.returned += returned
        self.exit = price
        return returned


@dataclass
class _Account:
    """The position of an agent in a ticker: its lots, and what each trade did to it.

    Attributes:
        opened: by trade, what it returned by reducing the other side, at which entry, and the lot that it opened.
        closed: by trade, the average entry of what it closed.
    """

    lots: list[_Lot] = field(default_factory=list)
    opened: dict[GameTrade, tuple[float, float | None, _Lot | None]] = field(default_factory=dict)
    closed: dict[GameTrade, float | None] = field(default_factory=dict)

    def reduce(self, lots: Sequence[_Lot], size: float, price: float) -> tuple[float, float | None]:
        """Close so much of these lots, alike of each; says what that returned, and their average entry."""
        held = sum(lot.left for lot in lots)
        if held <= SIZE_ROUNDING:
            return 0.0, None
        entry = sum(lot.left * lot.entry for lot in lots) / held
        part = 1.0 if size >= held - SIZE_ROUNDING else size / held
        return sum(lot.reduce(lot.left * part, price) for lot in lots), entry


class NetPerps:
    """What is known of a window's perpetuals, by which orders are valued.

    Args:
        decided: when the steps of these trades were, in epoch milliseconds, by trade.
    """

    def __init__(self, book: TradeBook, rules: PerpRules, decided: Mapping[GameTrade, int]) -> None:
        self._book, self._rules, self._decided = book, rules, decided
        self._holdings: dict[tuple[str, str], list[PerpHolding]] = defaultdict(list)
        for row in rules.holdings:
            self._holdings[row.agent, row.ticker].append(row)
        self._accounts: dict[tuple[str, str], _Account] = {}

    def value(self, order: StepOrder, trade: GameTrade) -> Valued:
        """What an order with its trade turned out to be worth."""
        sign = SIGNS.get(trade.side or order.side or "")
        if sign is None or not is_stake(trade.amount):
            return UNKNOWN
        account = self._account(trade.agent, order.instrument)
        if not trade.closes:
            return self._value_opening(trade, account, sign)
        price = believed_perp_price(trade.price, self._rules.quotes, order.instrument, order.at, trade.at, closes=True)
        return UNKNOWN if price is None else value_close(trade, price, account.closed.get(trade), sign, self._rules)

    def _value_opening(self, trade: GameTrade, account: _Account, sign: float) -> Valued:
        if trade not in account.opened:
            return UNKNOWN
        returned, reduced_entry, lot = account.opened[trade]
        if lot is None:
            worth = self._rules.worth(returned / trade.amount, trade.amount)
            return Valued.final(worth, reduced_entry)
        returned += lot.returned
        exit_price = lot.exit
        if lot.left > SIZE_ROUNDING:
            exit_price = self._rules.quotes.first(trade.instrument or "", int(trade.at + self._rules.horizon_ms))
            if exit_price is None:
                return Valued(None, "pending", lot.entry)
            returned += lot.left * sign * (exit_price / lot.entry - 1)
        worth = self._rules.worth(returned / trade.amount, trade.amount, lot.leverage)
        return Valued.final(worth, lot.entry, exit_price)

    def _account(self, agent: str, ticker: str) -> _Account:
        key = (agent, ticker)
        if key not in self._accounts:
            trades = [trade for trade in self._book.of(agent, "perp", ticker) if not trade.word]
            holdings = self._holdings.get(key, [])
            account = self._accounts[key] = _Account(_open_before(trades, holdings))
            for trade in trades:
                self._play(account, trade, holdings)
        return self._accounts[key]

    def _play(self, account: _Account, trade: GameTrade, holdings: Sequence[PerpHolding]) -> None:
        """Let a trade change the position as the game does."""
        at, ticker, sign = self._decided.get(trade, trade.at - 1), trade.instrument or "", SIGNS.get(trade.side or "")
        quote = self._rules.quotes.last(ticker, at)
        if trade.closes:
            price = believed_perp_price(trade.price, self._rules.quotes, ticker, at, trade.at, closes=True) or quote
            if price is not None:
                _, entry = account.reduce([lot for lot in account.lots if lot.left > 0], trade.amount, price)
                account.closed[trade] = _entry_of_closed(trade, holdings) or entry
            return
        holding = _opened_by(trade, at, holdings)
        fill = holding and believed_perp_price(holding.entry, self._rules.quotes, ticker, at, trade.at)
        entry = fill or quote
        if sign is None or entry is None or not is_stake(trade.amount):
            return
        against = [lot for lot in account.lots if lot.sign != sign and lot.left > 0]
        held = sum(lot.left for lot in against)
        returned, reduced_entry = account.reduce(against, trade.amount, entry)
        rest = trade.amount - min(held, trade.amount)
        lot = _Lot(sign, entry, rest, holding.leverage if holding else 1.0) if rest > SIZE_ROUNDING else None
        account.lots += [lot] if lot else []
        account.opened[trade] = (returned, reduced_entry, lot)


def _open_before(trades: Sequence[GameTrade], holdings: Sequence[PerpHolding]) -> list[_Lot]:
    """The position that was open before the first of these trades, with the size that it had then."""
    if not trades:
        return []
    first = trades[0].at - TOGETHER_MS
    lots = []
    for row in holdings:
        if row.opened < first and (row.closed is None or row.closed >= first) and row.entry > 0:
            changes = [trade for trade in trades if not trade.closes and (row.closed is None or trade.at < row.closed)]
            sizes = sum(trade.amount if trade.side != row.side else -trade.amount for trade in changes)
            lots.append(_Lot(SIGNS.get(row.side, 0.0), row.entry, max(row.size + sizes, 0.0), row.leverage))
    return lots


def _entry_of_closed(closing: GameTrade, holdings: Sequence[PerpHolding]) -> float | None:
    """The entry of the position that a trade closed, by the position's own row."""
    rows = [
        row
        for row in holdings
        if row.closed is not None and abs(row.closed - closing.at) <= TOGETHER_MS and closing.side in (None, row.side)
    ]
    return min(rows, key=lambda row: abs((row.closed or 0) - closing.at)).entry if rows else None


def _opened_by(trade: GameTrade, at: int, holdings: Sequence[PerpHolding]) -> PerpHolding | None:
    """The row of the position that this trade alone made; None where others added to it."""
    for row in holdings:
        if row.side == trade.side and at - TOGETHER_MS <= row.opened <= trade.at + TOGETHER_MS:
            return None if row.averaged else row
    return None
