"""The game's benchmark snapshots, and what trades on them come to: P&L, accuracy, drawdown, share of the optimal.

A snapshot is half an hour of the game with what became of it. Here a bet pays 1 per share of the right side and costs
its price, a perpetual position earns the signed change from its entry price to the last price, and a side is read
whatever its case. How a policy plays a snapshot is decided in `environments.simulated.snapshots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

Side = Literal["yes", "no", "long", "short"]
_SIDES: dict[str, Side] = {"yes": "yes", "no": "no", "long": "long", "short": "short"}


#: What a snapshot may say: a name is stored and indexed, a price divides, a list is played through.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Dollars = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class PredictionMarket(msgspec.Struct, frozen=True, rename="camel"):
    """A market with a question."""

    id: Name
    question: Annotated[str, msgspec.Meta(max_length=10_000)]
    yes_price: Probability
    no_price: Probability
    resolved: bool = False


class PerpetualMarket(msgspec.Struct, frozen=True):
    """A perpetual at its price in dollars."""

    ticker: Name
    price: Dollars


class State(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that can be traded at one tick."""

    prediction_markets: list[PredictionMarket]
    perpetual_markets: list[PerpetualMarket]


class Event(msgspec.Struct, frozen=True):
    """Something that happened in a tick, such as `post:created` or `market:trade`."""

    type: Name
    data: dict[str, Any]


class Tick(msgspec.Struct, frozen=True):
    """One tick: what happened, and the state after it. `timestamp` in epoch milliseconds."""

    number: Number
    timestamp: Milliseconds
    events: list[Event]
    state: State


class Price(msgspec.Struct, frozen=True):
    """A perpetual's price after a tick."""

    tick: Number
    price: Dollars


class GroundTruth(msgspec.Struct, frozen=True, rename="camel"):
    """What became of the markets. It goes into no prompt: the prompt's types cannot hold it."""

    market_outcomes: dict[str, bool]
    price_history: dict[str, list[Price]]


class Snapshot(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A benchmark of the game; `left_out` counts what its file holds besides and cannot be read, by kind."""

    id: Name
    initial_state: State
    ticks: list[Tick]
    ground_truth: GroundTruth
    left_out: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade at the price of its tick.

    Attributes:
        target: id of the prediction market, or ticker.
        amount: dollars staked on a prediction market; notional of a perpetual position.
        price: of a share of the side that was bought; of the perpetual.
    """

    tick: int
    target: str
    side: Side
    amount: float
    price: float


def side_of(text: str) -> Side:
    """A side in any case; `LONG`, `long` and `Long` are the same direction.

    Raises:
        ValueError: it is none.
    """
    side = _SIDES.get(text.strip().lower())
    if side is None:
        raise ValueError(f"{text!r} is no side; yes, no, long and short are")
    return side


def profit(trade: Trade, truth: GroundTruth) -> float:
    """What a trade came to in dollars when everything is settled.

    `amount / price` shares pay 1 each when the side was right and nothing otherwise; a position earns its notional
    times the signed change from its entry price to the last price.
    """
    if trade.side in ("yes", "no"):
        right = truth.market_outcomes[trade.target] == (trade.side == "yes")
        return trade.amount / trade.price - trade.amount if right else -trade.amount
    return _moved(trade, truth.price_history[trade.target][-1].price)


def marked(trade: Trade, state: State) -> float:
    """What a trade would come to at the prices of a state; 0 where its market is not in it."""
    if trade.side in ("yes", "no"):
        for market in state.prediction_markets:
            if market.id == trade.target:
                now = market.yes_price if trade.side == "yes" else market.no_price
                return trade.amount / trade.price * now - trade.amount
        return 0.0
    prices = [perp.price for perp in state.perpetual_markets if perp.ticker == trade.target]
    return _moved(trade, prices[0]) if prices else 0.0


def _moved(trade: Trade, price: float) -> float:
    change = trade.amount * (price / trade.price - 1)
    return change if trade.side == "long" else -change


@dataclass(frozen=True, slots=True)
class Performance:
    """How a run over a snapshot came out.

    Attributes:
        pnl: dollars, everything settled.
        accuracy: share of the bets on prediction markets that were on the right side; None without any.
        win_rate: share of the trades that earned something; None without any.
        drawdown: largest fall of the equity from a peak before it, in dollars, tick by tick and at the settlement.
        equity: P&L after each tick at its prices, and after the settlement.
        optimal: what the best choices on the same boards would have earned.
        of_optimal: `pnl` as a share of it; None where nothing could be earned.
    """

    pnl: float
    accuracy: float | None
    win_rate: float | None
    drawdown: float
    equity: tuple[float, ...]
    optimal: float
    of_optimal: float | None


def perform(snapshot: Snapshot, trades: Sequence[Trade], optimal: float) -> Performance:
    """Settle a run's trades.

    Args:
        optimal: P&L of the best choices, computed from the ground truth on the same boards.
    """
    truth = snapshot.ground_truth
    profits = [profit(trade, truth) for trade in trades]
    bets = [trade for trade in trades if trade.side in ("yes", "no")]
    right = [truth.market_outcomes[bet.target] == (bet.side == "yes") for bet in bets]
    equity = [
        sum(marked(trade, tick.state) for trade in trades if trade.tick <= tick.number) for tick in snapshot.ticks
    ]
    pnl = sum(profits)
    return Performance(
        pnl=pnl,
        accuracy=sum(right) / len(right) if right else None,
        win_rate=sum(gain > 0 for gain in profits) / len(profits) if profits else None,
        drawdown=drawdown([*equity, pnl]),
        equity=(*equity, pnl),
        optimal=optimal,
        of_optimal=pnl / optimal if optimal > 0 else None,
    )


def drawdown(equity: Sequence[float]) -> float:
    """The largest fall from an earlier peak; the P&L before the first tick, 0, counts as a peak."""
    peak, deepest = 0.0, 0.0
    for value in equity:
        peak = max(peak, value)
        deepest = max(deepest, peak - value)
    return deepest
