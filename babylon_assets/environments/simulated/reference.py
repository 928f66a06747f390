"""The reference policies of the simulated game: random, expert and oracle.

They give a learning curve its scale. `random` draws any legal order; `expert` acts on the news with a fixed share
and at random otherwise; `oracle` takes the order of the highest expected worth given what the board shows and how
reliable its source is. The oracle sees no truth: it is the best that a player can do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from babylon_assets.environments.simulated.market import (
    MOVE_MEAN,
    SOURCES,
    WIDE_SLOTS,
    Board,
    Order,
    legal_orders,
    news_order,
)

#: Share of ticks at which the expert acts on the news.
TEACHER_FOLLOWS = 0.40

ReferencePolicy = Callable[[Board, np.random.Generator], Order]


def random_order(board: Board, rng: np.random.Generator) -> Order:
    """Any legal order with equal chance."""
    orders = legal_orders(board)
    return orders[int(rng.integers(len(orders)))]


def expert_order(board: Board, rng: np.random.Generator) -> Order:
    """The news with probability `TEACHER_FOLLOWS`, else any legal order."""
    return news_order(board) if rng.random() < TEACHER_FOLLOWS else random_order(board, rng)


def oracle_order(board: Board, rng: np.random.Generator) -> Order:
    """The legal order of the highest expected worth; hold where none is worth more than nothing."""
    return max(legal_orders(board), key=lambda order: expected_worth(board, order))


REFERENCES: dict[str, ReferencePolicy] = {
    "random": random_order,
    "expert": expert_order,
    "oracle": oracle_order,
}


def expected_worth(board: Board, order: Order, full_scale_percent: float = 10.0) -> float:
    """Expected worth of an order for who knows the sources' reliability but not the truth.

    A prediction market pays 1 per share of the right side, so the expected worth per share is the side's posterior
    probability minus its price. A perpetual's is its expected move in units of `full_scale_percent`.
    """
    if order.target is None:
        return 0.0
    if order.target in WIDE_SLOTS:
        yes_price = next(line.yes_price for line in board.predictions if line.slot == order.target)
        edge = _posterior_yes(board, order.target, yes_price) - yes_price
        return edge if order.verb == "buy_yes" else -edge
    move = (2 * _posterior_up(board, order.target) - 1) * MOVE_MEAN / full_scale_percent
    return move if order.verb == "open_long" else -move


def _posterior_yes(board: Board, slot: str, prior: float) -> float:
    """Bayes' rule: the market's price is the prior, the news an observation that is right at its source's rate."""
    news = board.news
    if news.target != slot:
        return prior
    right = SOURCES[news.source][0]
    given_yes, given_no = (right, 1 - right) if news.up else (1 - right, right)
    return prior * given_yes / (prior * given_yes + (1 - prior) * given_no)


def _posterior_up(board: Board, ticker: str) -> float:
    news = board.news
    if news.target != ticker:
        return 0.5
    right = SOURCES[news.source][0]
    return right if news.up else 1 - right
