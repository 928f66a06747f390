"""Worth of an order in Feed's prediction markets: the winners get their stakes back and share the losers'.

Shares of one side are alike: a sale takes them from all purchases of that position, and what the position is paid at
the end is the same for each share. The game's own account of a position, `pnl`, lacks what was sold before; it says
what the shares that were left have earned. Worth is the profit of a purchase per dollar that it cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import NamedTuple

from babylon_assets.environments.babylon.linking import GameTrade, StepOrder, TradeBook
from babylon_assets.environments.babylon.quotes import Quotes, believed_share_price
from babylon_assets.environments.babylon.share_markets import Resolutions
from babylon_assets.environments.babylon.stakes import LEAST_STAKE, UNKNOWN, State, Valued, is_stake

#: The share of a trade that goes into the market; the rest is the fee.
AFTER_FEE = 0.999
#: A part of a position that is smaller than this is rounding.
ROUNDING = 1e-6


class Holding(NamedTuple):
    """A row of `Position`: what somebody holds, or held to the end, of one side of a market.

    Attributes:
        price: net dollars per share, on average.
        pnl: what the game says that the shares left at the end earned; None while it says nothing.
    """

    agent: str
    market: str
    side: str
    shares: float
    price: float
    pnl: float | None


@dataclass
class _Purchase:
    """A purchase, with what of it was sold and for how much."""

    trade: GameTrade
    shares: float
    left: float
    proceeds: float = 0.0

    @property
    def cost_left(self) -> float:
        return self.trade.amount * self.left / self.shares


@dataclass
class _Account:
    """The purchases of one side of a market by one agent; `sold` has the cost of what each sale sold."""

    purchases: list[_Purchase] = field(default_factory=list)
    sold: dict[GameTrade, float] = field(default_factory=dict)
    whole: bool = True

    @property
    def cost_left(self) -> float:
        """Dollars that the shares which are left have cost, with the fee."""
        return sum(purchase.cost_left for purchase in self.purchases)

    def add(self, trade: GameTrade) -> None:
        if not (is_stake(trade.amount) and is_stake(trade.price)):
            self.whole = False
        elif trade.closes:
            self._sell(trade)
        else:
            shares = AFTER_FEE * trade.amount / trade.price
            if is_stake(shares):
                self.purchases.append(_Purchase(trade, shares, shares))
            else:
                self.whole = False

    def _sell(self, sale: GameTrade) -> None:
        held = sum(purchase.left for purchase in self.purchases)
        if held <= 0:
            self.whole = False
            return
        part = min(1.0, sale.amount / (AFTER_FEE * sale.price) / held)
        part = 1.0 if part > 1 - ROUNDING else part
        self.sold[sale] = part * self.cost_left
        for purchase in self.purchases:
            purchase.proceeds += sale.amount * purchase.left / held
            purchase.left *= 1 - part


class PoolMarkets:
    """What is known of a window's prediction markets, by which orders are valued.

    Args:
        holdings: of every market, all positions; none where the game keeps none.
    """

    def __init__(self, book: TradeBook, quotes: Quotes, resolutions: Resolutions, holdings: Sequence[Holding]) -> None:
        self._book, self._quotes, self._resolutions = book, quotes, resolutions
        ranked = sorted(holdings, key=lambda row: (row.pnl is not None, row.shares))
        self._holdings = {(row.agent, row.market, row.side): row for row in ranked}
        self._by_market: dict[str, list[Holding]] = {}
        for row in holdings:
            self._by_market.setdefault(row.market, []).append(row)
        self._accounts: dict[tuple[str, str, str], _Account] = {}

    def value(self, order: StepOrder, trade: GameTrade) -> Valued:
        """What an order with its trade turned out to be worth."""
        side = trade.side or order.side
        if side not in ("yes", "no") or not is_stake(trade.amount):
            return UNKNOWN
        since, until, market_side = min(order.at, trade.at), max(order.at, trade.at), f"{side} {order.instrument}"
        price = believed_share_price(trade.price, self._quotes, market_side, since, until, closes=trade.closes)
        if price is None:
            return UNKNOWN
        account = self._account(trade.agent, order.instrument, side)
        if trade.closes:
            return _value_sale(trade, account)
        return self._value_purchase(trade, account, order.instrument, side)

    def average_cost(self, agent: str, market: str, side: str, at: int) -> float | None:
        """Dollars that each share of an agent's position had cost at a time; None where there was no position."""
        account = _Account()
        for trade in self._book.of(agent, "prediction", market):
            if trade.side == side and not trade.word and trade.at < at:
                account.add(trade)
        left = sum(purchase.left for purchase in account.purchases)
        return account.cost_left / left if left > 0 and account.whole else None

    def paid_per_share(self, market: str, side: str, price: float) -> float | None:
        """What a share of the winning side is paid that was bought at this price; None where nobody held that side."""
        rows = self._by_market.get(market, [])
        winners = sum(row.shares for row in rows if row.side == side)
        losses = sum(row.shares * row.price for row in rows if row.side != side)
        return price + losses / winners if winners > 0 else None

    def _account(self, agent: str, market: str, side: str) -> _Account:
        key = (agent, market, side)
        if key not in self._accounts:
            account = self._accounts[key] = _Account()
            for trade in self._book.of(agent, "prediction", market):
                if trade.side == side and not trade.word:
                    account.add(trade)
        return self._accounts[key]

    @cached_property
    def _counted_cost(self) -> float:
        """Which share of what a position cost its `pnl` counts: all of it, or what is left after the fee.

        Positions that lost say so, as they lost all that is counted. Where none did, it is all.
        """
        lost = cost = 0.0
        for (agent, market, side), row in self._holdings.items():
            result, _ = self._resolutions.get(market, (None, "unknown"))
            if row.pnl is not None and result is not None and result != (side == "yes"):
                account = self._account(agent, market, side)
                if account.whole and account.cost_left >= LEAST_STAKE:
                    lost, cost = lost - row.pnl, cost + account.cost_left
        return AFTER_FEE if lost < cost * (1 + AFTER_FEE) / 2 else 1.0

    def _value_purchase(self, trade: GameTrade, account: _Account, market: str, side: str) -> Valued:
        purchase = next((row for row in account.purchases if row.trade is trade), None)
        if purchase is None:
            return UNKNOWN
        if purchase.left <= ROUNDING * purchase.shares:
            return _final(purchase, 0.0)
        paid, state = self._pay(trade.agent, account, market, side)
        return _final(purchase, paid) if paid is not None else Valued(None, state, trade.price)

    def _pay(self, agent: str, account: _Account, market: str, side: str) -> tuple[float | None, State]:
        """What each share that is left is paid; None, and why, while that is not known."""
        result, state = self._resolutions.get(market, (None, "unknown"))
        if state == "pending":
            return None, "pending"
        if result is not None and result != (side == "yes"):
            return 0.0, "final"
        holding = self._holdings.get((agent, market, side))
        if holding is None or not account.whole:
            return None, "unknown"
        left = sum(purchase.left for purchase in account.purchases)
        if holding.pnl is not None:
            return (holding.pnl + self._counted_cost * account.cost_left) / left, "final"
        if result is None:
            return None, "unknown"
        paid = self.paid_per_share(market, side, holding.price)
        return (paid, "final") if paid is not None else (None, "unknown")


def _final(purchase: _Purchase, paid: float) -> Valued:
    """The profit of a purchase per dollar; the exit is what each of its shares brought, on average."""
    cost, brought = purchase.trade.amount, purchase.proceeds + purchase.left * paid
    return Valued.final((brought - cost) / max(cost, LEAST_STAKE), purchase.trade.price, brought / purchase.shares)


def _value_sale(sale: GameTrade, account: _Account) -> Valued:
    """What a sale brought against what the shares had cost, per dollar of that: by its own profit, if it says one."""
    cost = sale.amount - sale.pnl if isfinite(sale.pnl) else account.sold.get(sale)
    if cost is None or cost <= 0:
        return UNKNOWN
    shares = sale.amount / (AFTER_FEE * sale.price)
    return Valued.final((sale.amount - cost) / max(cost, LEAST_STAKE), AFTER_FEE * cost / shares, sale.price)
