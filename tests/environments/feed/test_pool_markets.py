"""Bets that were bought in parts and sold in parts: each purchase gets what its shares brought."""

from __future__ import annotations

import pytest

from babylon_assets.environments.babylon.linking import GameTrade, StepOrder, TradeBook
from babylon_assets.environments.babylon.pool_markets import AFTER_FEE, Holding, PoolMarkets
from babylon_assets.environments.babylon.quotes import Quotes
from babylon_assets.environments.babylon.stakes import Valued


def trade(at: int, amount: float, price: float, *, closes: bool = False, pnl: float = float("nan")) -> GameTrade:
    return GameTrade("a", "prediction", "m", "yes", closes, amount, price, pnl, at)


def value(trades: list[GameTrade], won: bool | None, pnl: float | None) -> list[Valued]:
    """What each trade was worth, as the order of a step of its own."""
    book, state = TradeBook(trades), {"m": (None if won is None else float(won), "pending" if won is None else "final")}
    holding = Holding("a", "m", "yes", 1.0, 1.0, pnl)
    quotes = Quotes([("yes m", 0, 0.4), ("yes m", 9, 0.6)])
    markets = PoolMarkets(book, quotes, state, [holding])  # type: ignore[arg-type]
    order = StepOrder(0, "a", "prediction", "m", "yes", False, 0.0, 0, 0, 1)
    return [markets.value(order, row) for row in trades]


def test_a_part_that_was_sold_and_a_part_that_was_paid() -> None:
    """100 dollars at even odds; half of the shares is sold for 60 dollars; the other half, which cost 50, earns 30."""
    half = 100 * AFTER_FEE / 2
    sale = trade(2, 60.0, 60.0 / AFTER_FEE / half, closes=True, pnl=10.0)
    bought, sold = value([trade(1, 100.0, 1.0), sale], True, 30.0)
    assert bought.worth == pytest.approx(((60 - 50) + 30) / 100)
    assert sold.worth == pytest.approx(10 / 50)


def test_a_sale_without_a_profit_of_its_own_is_against_the_average_cost() -> None:
    sale = trade(3, 45.0, 45.0 / AFTER_FEE / (100 * AFTER_FEE / 2), closes=True)
    *_, sold = value([trade(1, 40.0, 0.8), trade(2, 60.0, 1.2), sale], None, None)
    assert sold.worth == pytest.approx((45 - 50) / 50)


def test_what_was_sold_whole_needs_no_outcome() -> None:
    sale = trade(2, 80.0, 80.0 / AFTER_FEE / (100 * AFTER_FEE), closes=True, pnl=-20.0)
    for won, pnl in ((None, None), (True, 0.0), (False, 0.0)):
        bought, _ = value([trade(1, 100.0, 1.0), sale], won, pnl)
        assert (bought.worth, bought.state) == (pytest.approx(-0.2), "final")


def test_a_part_that_is_still_held_waits() -> None:
    sale = trade(2, 60.0, 60.0 / AFTER_FEE / 49.95, closes=True, pnl=10.0)
    bought, _ = value([trade(1, 100.0, 1.0), sale], None, None)
    assert bought.state == "pending"


@pytest.mark.parametrize(
    ("bet", "pnl"),
    [((100.0, 1.0), float("inf")), ((1.7e308, 0.5), 30.0), ((5e-324, 1e9), 30.0), ((1e-320, 1.4), float("nan"))],
)
def test_numbers_that_cannot_be_counted_with_earn_nothing_and_stop_nothing(
    bet: tuple[float, float], pnl: float
) -> None:
    assert value([trade(1, *bet)], True, pnl)[0].state == "unknown"
