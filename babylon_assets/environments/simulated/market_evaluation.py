"""The simulated market as a benchmark: boards that no game and no demonstration shows, the same for every policy.

A seed draws one room of boards; each board is shown with an account that is drawn as well, and asked about once. All
policies are asked with the same random numbers, so that two that hardly differ give hardly different answers, and what
is left of their difference is not luck. An order counts what it is worth to who knows how reliable the news is, not
what a coin made of it: the mean is the same, the spread half.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.evaluations import PolicyEvaluation
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.simulated.demonstrations import any_account
from babylon_assets.environments.simulated.language import InvalidOrderError
from babylon_assets.environments.simulated.market import Board, Clock, draw_room
from babylon_assets.environments.simulated.reference import expected_worth, oracle_order
from babylon_assets.environments.simulated.styles import TERSE, Style, style_of

NAME = "market"
#: Added to the number of a held-out market; the hour is one that no game and no demonstration is drawn for.
FIRST_SEED = 2_000_000_033
_WINDOW = "2000-01-01T01:00"
_CLOCK = Clock(rooms=4, ticks=12)
#: In the game's style a prompt takes eight times as long to read, so a seed draws a third of the boards.
_WIDE_CLOCK = Clock(rooms=4, ticks=4, is_wide=True)
#: Conversations that the engine takes at once: on two cores, 32 are answered a third faster than 768. Long ones take
#: more memory.
BATCH, WIDE_BATCH = 64, 16


class MarketBenchmark:
    """The held-out boards, as `environments.base.Benchmark` has it."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self._invalid_reward = settings.rewards.invalid_action_reward
        self._full_scale = settings.rewards.perp_full_scale_percent
        self._style = style_of(settings)
        self._clock = _WIDE_CLOCK if self._style.is_wide else _CLOCK

    def version(self, seeds: int) -> str:
        """What decides the numbers of an evaluation, as a name: another one is another evaluation."""
        scale = {"invalid": self._invalid_reward, "full_scale": self._full_scale}
        style = {} if self._style is TERSE else {"style": self._style.name}
        return f"1-{content_id({'seeds': _seeds(seeds), **scale, 'boards': self._clock.ticks, **style})[:12]}"

    def evaluate(self, policy: Policy, seeds: int) -> PolicyEvaluation:
        """Ask a policy about every held-out board once, and add up what its orders are worth."""
        numbers = _seeds(seeds)
        boards = [board for seed in numbers for board in _boards(seed, self._clock)]
        texts = _ask(policy, boards, self._style)
        worths = np.array([self._worth(text, board) for text, board in zip(texts, boards, strict=True)])
        best = np.array([self._best(board) for board in boards])
        invalid = np.isnan(worths)
        rewards = np.where(invalid, self._invalid_reward, worths)
        shape = (len(numbers), self._clock.ticks)
        by_seed = (values.reshape(shape).mean(axis=1).tolist() for values in (rewards, 1.0 - invalid, best))
        return PolicyEvaluation(numbers, *map(tuple, by_seed))

    def _worth(self, text: str, board: Board) -> float:
        """Expected worth of an answer's order in the units of the `outcome` scorer; NaN for an invalid one."""
        try:
            return expected_worth(board, self._style.parse(text, board), self._full_scale)
        except InvalidOrderError:
            return float("nan")

    def _best(self, board: Board) -> float:
        order = oracle_order(board, np.random.default_rng(0))
        return expected_worth(board, order, self._full_scale)


def _seeds(count: int) -> tuple[int, ...]:
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


@cache
def _boards(seed: int, clock: Clock = _CLOCK) -> tuple[Board, ...]:
    return tuple(board for board, _ in draw_room(seed, _WINDOW, seed % clock.rooms, clock))


def _ask(policy: Policy, boards: Sequence[Board], style: Style) -> list[str]:
    rng = np.random.default_rng(FIRST_SEED)
    conversations = [style.prompt(board, any_account(rng)) for board in boards]
    texts: list[str] = []
    size = WIDE_BATCH if style.is_wide else BATCH
    for start in range(0, len(boards), size):
        part = conversations[start : start + size]
        seeds = range(start, start + len(part))
        texts += [answer.text for answer in policy.complete(part, seeds, max_tokens=style.answer_tokens)]
    return texts
