"""Players that follow the expert's rule and answer in the game's words, as another model would that plays beside ours.

A language model that has never seen the game learns its form from them: what they answered is imitated, the better half
of it, before the model plays itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from babylon_assets.domain.policies import Completion
from babylon_assets.environments.simulated.market import Board, Order
from babylon_assets.environments.simulated.play import Chooser, Reply, Turn
from babylon_assets.environments.simulated.reference import expert_order

#: Answers that an expert gives before a model plays that was not taught the game; the better half of them is imitated.
EXPERT_ANSWERS = 1024


class ExpertPlayers:
    """The expert as a policy of the game; its answers are known as texts only."""

    name = "simulated-expert"

    def chooser(self, rng: np.random.Generator, answer: Callable[[Board, Order], str]) -> Chooser:
        """What the players of a window answer; all chance is `rng`'s, and `answer` writes an order down."""

        def choose(turns: Sequence[Turn]) -> list[Reply]:
            orders = [expert_order(turn.board, rng) for turn in turns]
            texts = [answer(turn.board, order) for turn, order in zip(turns, orders, strict=True)]
            return [
                Reply(order, None, Completion(text, [], [], [], "stop"))
                for order, text in zip(orders, texts, strict=True)
            ]

        return choose
