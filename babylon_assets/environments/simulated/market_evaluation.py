"""The simulated market as an examination: boards that no game and no lesson shows, the same for every policy.

A seed draws one room of boards; each board is shown with an account that is drawn as well, and asked about once. All
policies are asked with the same random numbers, so that two that hardly differ give hardly different answers, and what
is left of their difference is not luck. An order counts what it is worth to who knows how reliable the news is, not
what a coin made of it: the mean is the same, the spread half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from babylon_assets.config.scoring import RewardSettings
from babylon_assets.domain.gates import Measurement
from babylon_assets.domain.lineage import content_id
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.simulated.demonstrations import any_account
from babylon_assets.environments.simulated.language import ANSWER_TOKENS, InvalidOrderError, parse_order, prompt
from babylon_assets.environments.simulated.market import Board, Clock, draw_room
from babylon_assets.environments.simulated.reference import expected_worth, oracle_order

NAME = "market"
#: Added to the number of a held-out market; the hour is one that no game and no lesson is drawn for.
FIRST_SEED = 2_000_000_033
_WINDOW = "2000-01-01T01:00"
_CLOCK = Clock(rooms=4, ticks=12)
#: Conversations that the engine takes at once: on two cores, 32 are answered a third faster than 768.
BATCH = 64


@dataclass(frozen=True, slots=True)
class MarketResult:
    """What one policy did: mean reward, share of valid actions and reward of the oracle per seed, in order."""

    seeds: tuple[int, ...]
    rewards: tuple[float, ...]
    valid: tuple[float, ...]
    oracle: tuple[float, ...]

    def measured(self, name: str) -> Measurement:
        """As the gate takes it."""
        return Measurement(name, self.rewards, self.valid)

    @property
    def reward(self) -> float:
        return float(np.mean(self.rewards))

    @property
    def valid_share(self) -> float:
        return float(np.mean(self.valid))

    @property
    def advantage(self) -> float:
        """Share of the oracle's advantage over acting at random, which earns 0 on every board by symmetry."""
        return self.reward / float(np.mean(self.oracle))


def version(count: int, rewards: RewardSettings) -> str:
    """What decides the numbers of an examination, as a name: another one is another evaluation."""
    known = {"seeds": _seeds(count), **_scale(rewards)}
    return f"1-{content_id({**known, 'boards': _CLOCK.ticks})[:12]}"


def evaluate_policy(policy: Policy, count: int, settings: RewardSettings) -> MarketResult:
    """Ask a policy about every held-out board once, and add up what its orders are worth."""
    seeds = _seeds(count)
    boards = [board for seed in seeds for board in _boards(seed)]
    worths = np.array([_worth(text, board, settings) for text, board in zip(_ask(policy, boards), boards, strict=True)])
    best = np.array([_best(board, settings) for board in boards])
    invalid = np.isnan(worths)
    rewards = np.where(invalid, settings.invalid_action_reward, worths)
    shape = (len(seeds), _CLOCK.ticks)
    by_seed = (values.reshape(shape).mean(axis=1).tolist() for values in (rewards, 1.0 - invalid, best))
    return MarketResult(seeds, *map(tuple, by_seed))


def _seeds(count: int) -> tuple[int, ...]:
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


@cache
def _boards(seed: int) -> tuple[Board, ...]:
    return tuple(board for board, _ in draw_room(seed, _WINDOW, seed % _CLOCK.rooms, _CLOCK))


def _ask(policy: Policy, boards: Sequence[Board]) -> list[str]:
    rng = np.random.default_rng(FIRST_SEED)
    conversations = [prompt(board, any_account(rng)) for board in boards]
    texts: list[str] = []
    for start in range(0, len(boards), BATCH):
        part = conversations[start : start + BATCH]
        seeds = range(start, start + len(part))
        texts += [answer.text for answer in policy.complete(part, seeds, max_tokens=ANSWER_TOKENS)]
    return texts


def _worth(text: str, board: Board, settings: RewardSettings) -> float:
    """Expected worth of an answer's order in the units of the `outcome` scorer; NaN for an invalid one."""
    try:
        return expected_worth(board, parse_order(text, board), settings.perp_full_scale_percent)
    except InvalidOrderError:
        return float("nan")


def _best(board: Board, settings: RewardSettings) -> float:
    order = oracle_order(board, np.random.default_rng(0))
    return expected_worth(board, order, settings.perp_full_scale_percent)


def _scale(rewards: RewardSettings) -> dict[str, float]:
    return {"invalid": rewards.invalid_action_reward, "full_scale": rewards.perp_full_scale_percent}
