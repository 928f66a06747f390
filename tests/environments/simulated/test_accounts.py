"""Money in the simulated game."""

from __future__ import annotations

import pytest

from babylon_assets.environments.simulated.accounts import NOTIONAL, STAKE, Player, make_bet, worth
from babylon_assets.environments.simulated.language import InvalidOrderError
from babylon_assets.environments.simulated.market import Board, Clock, Order, Truth, draw_room, legal_orders

DRAWN = [drawn for room in range(4) for drawn in draw_room(0, "2026-11-05T14:00", room, Clock(4, 16))]


@pytest.mark.parametrize("drawn", DRAWN[:12])
def test_a_bet_is_worth_what_it_pays_less_what_it_costs(drawn: tuple[Board, Truth]) -> None:
    board, truth = drawn
    line = board.predictions[0]
    yes, no = Order("buy_yes", line.slot), Order("buy_no", line.slot)
    won = truth.resolutions[line.market_id]
    assert worth(yes, board, truth, 10.0) == pytest.approx(won - line.yes_price)
    assert worth(no, board, truth, 10.0) == pytest.approx((not won) - (1 - line.yes_price))
    bet = make_bet(yes, board, truth)
    assert bet.profit == pytest.approx((STAKE / line.yes_price - STAKE) if won else -STAKE)


@pytest.mark.parametrize("drawn", DRAWN[:12])
def test_long_and_short_are_opposite_and_cut_at_one(drawn: tuple[Board, Truth]) -> None:
    board, truth = drawn
    perp = board.perps[0]
    long, short = Order("open_long", perp.ticker), Order("open_short", perp.ticker)
    percent = 100 * (truth.exit_prices[perp.ticker] / perp.price - 1)
    assert worth(long, board, truth, 10.0) == pytest.approx(max(-1, min(1, percent / 10)))
    assert worth(long, board, truth, 10.0) == -worth(short, board, truth, 10.0)
    assert make_bet(long, board, truth).profit == pytest.approx(NOTIONAL * percent / 100)


def test_money_is_neither_made_nor_lost_by_settling() -> None:
    player = Player("1", "trader", room=0)
    for number, (board, truth) in enumerate(DRAWN[:16]):
        player.settle(board.at)
        player.place(legal_orders(board)[number % 9], board, truth)
        assert player.cash + sum(bet.locked for bet in player.bets) == pytest.approx(10_000 + player.pnl)


def test_a_bet_is_settled_when_it_is_due_and_not_before() -> None:
    board, truth = DRAWN[0]
    player = Player("1", "trader", room=0)
    bet = player.place(Order("open_long", board.perps[0].ticker), board, truth)
    assert bet is not None
    assert player.settle(board.at) == []
    assert player.settle(truth.exits_at) == [bet]
    assert player.settle(truth.exits_at) == []
    assert player.pnl == pytest.approx(bet.profit)


def test_who_cannot_pay_cannot_bet() -> None:
    board, truth = DRAWN[0]
    player = Player("1", "trader", room=0, cash=STAKE - 1)
    with pytest.raises(InvalidOrderError, match="do not pay"):
        player.place(Order("buy_yes", "A"), board, truth)
    assert player.cash == STAKE - 1
    assert player.bets == []
