"""Players and their money: what they hold, what they have bet, and what settles when.

An account changes by three events only: an order is placed, a prediction market resolves, a perpetual position is
closed. Amounts are virtual dollars. Nothing here reads a prompt or a database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from babylon_assets.environments.simulated.language import STARTING_CASH, Account, InvalidOrderError
from babylon_assets.environments.simulated.market import WIDE_SLOTS, Board, Order, Truth
from babylon_assets.environments.simulated.questions import question

#: Dollars staked on a prediction market, and the notional of a perpetual position.
STAKE, NOTIONAL = 50.0, 500.0


@dataclass(frozen=True, slots=True)
class Bet:
    """An open bet: `locked` dollars are returned with `profit` at `settles_at`, which the player does not know."""

    board: Board
    order: Order
    price: float
    amount: float
    locked: float
    profit: float
    settles_at: datetime

    @property
    def market_id(self) -> str | None:
        """The prediction market that the bet is on; None for a perpetual."""
        lines = (line for line in self.board.predictions if line.slot == self.order.target)
        return next((line.market_id for line in lines), None)

    @property
    def side(self) -> str:
        """yes, no, long or short."""
        return self.order.verb.rpartition("_")[2]


@dataclass(slots=True)
class Player:
    """An agent of the game: its money, and its bets that are not settled yet."""

    agent_id: str
    username: str
    room: int
    cash: float = STARTING_CASH
    pnl: float = 0.0
    bets: list[Bet] = field(default_factory=list)

    @property
    def account(self) -> Account:
        """The player's own line in a prompt."""
        return Account(self.cash, self.pnl, len(self.bets), self.username, tuple(map(_in_words, self.bets)))

    def settle(self, now: datetime) -> list[Bet]:
        """Pay out what has been settled by `now`; returns those bets."""
        due = [bet for bet in self.bets if bet.settles_at <= now]
        for bet in due:
            self.cash += bet.locked + bet.profit
            self.pnl += bet.profit
        self.bets = [bet for bet in self.bets if bet.settles_at > now]
        return due

    def place(self, order: Order, board: Board, truth: Truth) -> Bet | None:
        """Carry out an order; None for a hold.

        Raises:
            InvalidOrderError: the player cannot pay for it.
        """
        if order.target is None:
            return None
        bet = make_bet(order, board, truth)
        if bet.locked > self.cash:
            raise InvalidOrderError(f"{self.cash:.0f} dollars do not pay for {bet.locked:.0f}")
        self.cash -= bet.locked
        self.bets.append(bet)
        return bet


def _in_words(bet: Bet) -> str:
    what = bet.order.target if bet.market_id is None else f'"{question(bet.market_id)}"'
    return f"{bet.side} {what} for ${bet.amount:.0f} at {bet.price:.2f}"


def make_bet(order: Order, board: Board, truth: Truth) -> Bet:
    """What an order comes to, given the truth.

    `STAKE` dollars buy `STAKE / price` shares that pay 1 each if the side is right. A perpetual position of `NOTIONAL`
    dollars earns the signed change of the price; a fifth of it is locked as margin.
    """
    if order.target in WIDE_SLOTS:
        line = next(line for line in board.predictions if line.slot == order.target)
        price = line.yes_price if order.verb == "buy_yes" else round(1 - line.yes_price, 2)
        won = truth.resolutions[line.market_id] == (order.verb == "buy_yes")
        profit = STAKE / price - STAKE if won else -STAKE
        return Bet(
            board=board,
            order=order,
            price=price,
            amount=STAKE,
            locked=STAKE,
            profit=profit,
            settles_at=truth.resolves_at[line.market_id],
        )
    perp = next(perp for perp in board.perps if perp.ticker == order.target)
    change = truth.exit_prices[perp.ticker] / perp.price - 1
    profit = NOTIONAL * (change if order.verb == "open_long" else -change)
    return Bet(
        board=board,
        order=order,
        price=perp.price,
        amount=NOTIONAL,
        locked=NOTIONAL / 5,
        profit=profit,
        settles_at=truth.exits_at,
    )


def worth(order: Order, board: Board, truth: Truth, full_scale_percent: float) -> float:
    """What an order was worth in the units of the `outcome` scorer, in [-1, 1]; 0 for a hold.

    A share of a prediction market: its payout minus its price. A perpetual: its signed change in percent, as a share
    of `full_scale_percent`, cut at 1.
    """
    if order.target is None:
        return 0.0
    bet = make_bet(order, board, truth)
    if bet.market_id is not None:
        return (1.0 if bet.profit > 0 else 0.0) - bet.price
    return max(-1.0, min(1.0, 100 * bet.profit / NOTIONAL / full_scale_percent))
