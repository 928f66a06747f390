"""Worth of an order in Babylon's prediction markets: a share pays 1 where its side is right, and nothing else.

The price of a share is what it cost in dollars: the game charges the odds p / (1 - p), which may be above 1, so that a
right purchase above p = 1/2 loses. Worth is per share: what it paid less what it cost. What was sold is worth its price
less what it had cost.
"""

from __future__ import annotations

from collections.abc import Mapping

from babylon_assets.environments.babylon.linking import GameTrade, StepOrder, TradeBook
from babylon_assets.environments.babylon.quotes import Quotes, believed_share_price
from babylon_assets.environments.babylon.stakes import UNKNOWN, State, Valued, is_stake, weight_stake

#: By market: 1.0 for YES, 0.0 for NO, None while it is not known, and the state.
Resolutions = Mapping[str, tuple[float | None, State]]


def value_share_order(
    order: StepOrder, trade: GameTrade, book: TradeBook, quotes: Quotes, resolutions: Resolutions
) -> Valued:
    """What an order with its trade turned out to be worth."""
    side = trade.side or order.side
    if side not in ("yes", "no") or not is_stake(trade.amount):
        return UNKNOWN
    since = min(order.at, trade.at)
    until, market_side = max(order.at, trade.at), f"{side} {order.instrument}"
    price = believed_share_price(trade.price, quotes, market_side, since, until, closes=trade.closes)
    if price is None:
        return UNKNOWN
    weight = weight_stake(trade.amount)
    if trade.closes:
        cost = _cost_of_share(trade, price, book)
        return UNKNOWN if cost is None else Valued.final((price - cost) * weight, cost, price)
    result, state = resolutions.get(order.instrument, (None, "unknown"))
    if result is None:
        return Valued(None, state, price)
    paid = result if side == "yes" else 1 - result
    return Valued.final((paid - price) * weight, price, paid)


def _cost_of_share(sale: GameTrade, price: float, book: TradeBook) -> float | None:
    """What a share that was sold had cost: by the sale's own profit, or by the purchases before it, on average."""
    shares = sale.amount / price
    if sale.pnl == sale.pnl:
        return price - sale.pnl / shares
    before = [
        trade
        for trade in book.of(sale.agent, "prediction", sale.instrument)
        if not trade.closes and trade.side == sale.side and trade.at <= sale.at and trade.price > 0
    ]
    bought = sum(trade.amount / trade.price for trade in before)
    return sum(trade.amount for trade in before) / bought if bought else None
