"""Demonstrations for a model that has never seen the game: conversations and the expert's answers to them.

The demonstrations' boards are drawn from a seed space of their own, so that no board of a game is ever a demonstration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.language import STARTING_CASH, Account, answer, prompt
from babylon_assets.environments.simulated.market import Board, Clock, draw_room
from babylon_assets.environments.simulated.reference import expert_order

#: Added to a demonstration's seed, far beyond the seeds that a game is given.
LESSON_SEEDS = 1_000_000_007
_WINDOW = "2000-01-01T00:00"
_CLOCK = Clock(rooms=4, ticks=16)


@dataclass(frozen=True, slots=True)
class BoardDemonstration:
    """A conversation, the expert's answer to it, and the board behind it."""

    messages: list[Message]
    answer: str
    board: Board


def draw_demonstrations(seed: int, count: int) -> Iterator[BoardDemonstration]:
    """Yield `count` demonstrations; the same seed gives the same demonstrations."""
    rng = np.random.default_rng([LESSON_SEEDS, seed])
    produced = 0
    for course in range(count):
        for room in range(_CLOCK.rooms):
            for board, _ in draw_room(LESSON_SEEDS + 7919 * seed + course, _WINDOW, room, _CLOCK):
                if produced == count:
                    return
                produced += 1
                messages = prompt(board, any_account(rng))
                yield BoardDemonstration(messages, answer(board.news, expert_order(board, rng)), board)


def any_account(rng: np.random.Generator) -> Account:
    """An account as one finds it in a game that has gone on for a while: gains and losses of every size."""
    pnl = float(rng.choice((-1.0, 1.0, 1.0))) * 10 ** float(rng.uniform(0, 4.5))
    return Account(cash=max(100.0, STARTING_CASH + pnl), pnl=pnl, open_bets=int(rng.integers(4)))
