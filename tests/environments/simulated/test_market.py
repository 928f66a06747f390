"""The market: what is drawn, what a board shows, and what known policies can earn on it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from babylon_assets.environments.simulated.accounts import worth
from babylon_assets.environments.simulated.market import (
    SLOTS,
    SOURCES,
    Board,
    Clock,
    Truth,
    draw_room,
    legal_orders,
    news_order,
)
from babylon_assets.environments.simulated.reference import REFERENCES, expected_worth, oracle_order

CLOCK = Clock(rooms=4, ticks=16)
WINDOW = "2026-11-05T14:00"


def boards(seed: int, rooms: int = 4, windows: int = 12) -> list[tuple[Board, Truth]]:
    hours = [f"2026-11-05T{hour:02d}:00" for hour in range(windows)]
    return [drawn for hour in hours for room in range(rooms) for drawn in draw_room(seed, hour, room, CLOCK)]


def test_a_seed_decides_everything() -> None:
    assert draw_room(3, WINDOW, 1, CLOCK) == draw_room(3, WINDOW, 1, CLOCK)
    assert draw_room(3, WINDOW, 1, CLOCK) != draw_room(4, WINDOW, 1, CLOCK)


def test_no_two_boards_of_a_window_share_a_moment() -> None:
    times = sorted(CLOCK.at(WINDOW, room, tick) for room in range(4) for tick in range(16))
    gaps = {(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)}
    assert min(gaps) == pytest.approx(56.25, abs=1e-3)


def test_a_room_is_settled_before_its_next_tick() -> None:
    drawn = draw_room(0, WINDOW, 2, CLOCK)
    for (_, truth), (following, _) in itertools.pairwise(drawn):
        assert truth.exits_at < following.at


def test_prices_go_on_from_board_to_board() -> None:
    drawn = draw_room(0, WINDOW, 0, CLOCK)
    for (_, truth), (following, _) in itertools.pairwise(drawn):
        assert {perp.ticker: perp.price for perp in following.perps} == truth.exit_prices


@pytest.mark.parametrize("source", SOURCES)
def test_news_is_right_at_the_rate_of_its_source(source: str) -> None:
    right = [
        worth(news_order(board), board, truth, 10.0) > 0
        for board, truth in boards(seed=1, windows=24)
        if board.news.source == source
    ]
    assert np.mean(right) == pytest.approx(SOURCES[source][0], abs=0.06)


def test_prediction_markets_resolve_yes_as_often_as_their_price_says() -> None:
    gap = [
        truth.resolutions[line.market_id] - line.yes_price
        for board, truth in boards(seed=2, windows=24)
        for line in board.predictions
    ]
    assert np.mean(gap) == pytest.approx(0.0, abs=0.03)


def test_some_markets_resolve_in_a_later_hour() -> None:
    late = [
        at >= CLOCK.at(board.window, 0, 0).replace(minute=0, second=0, microsecond=0).replace(hour=board.at.hour)
        and at.hour != board.at.hour
        for board, truth in boards(seed=0)
        for at in truth.resolves_at.values()
    ]
    assert 0.02 < np.mean(late) < 0.2


def test_the_oracle_earns_what_it_expects_and_more_than_teacher_and_random() -> None:
    drawn = boards(seed=5, windows=24)
    rng = np.random.default_rng(0)
    earned = {
        name: np.mean([worth(choose(board, rng), board, truth, 10.0) for board, truth in drawn])
        for name, choose in REFERENCES.items()
    }
    expected = np.mean([expected_worth(board, oracle_order(board, rng)) for board, _ in drawn])
    assert earned["oracle"] == pytest.approx(expected, abs=0.04)
    assert earned["random"] == pytest.approx(0.0, abs=0.04)
    assert earned["random"] + 0.08 < earned["expert"] < earned["oracle"] - 0.15


def test_every_order_of_a_board_without_news_about_it_is_expected_to_earn_nothing() -> None:
    board, _ = draw_room(0, WINDOW, 0, CLOCK)[0]
    for order in legal_orders(board):
        if order.target != board.news.target:
            assert expected_worth(board, order) == pytest.approx(0.0)


def test_there_are_nine_orders() -> None:
    board, _ = draw_room(0, WINDOW, 0, CLOCK)[0]
    assert len(set(legal_orders(board))) == 1 + 2 * (len(SLOTS) + len(board.perps)) == 9
