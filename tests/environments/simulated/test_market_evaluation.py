"""The held-out market: what it says of policies that are known, and that no game or demonstration shows its boards."""

from __future__ import annotations

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.environments.simulated import market_evaluation
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.environments.simulated.market import Clock, draw_room
from tests.evaluation.players import Scripted, babble, follow, hold, oppose

SEEDS, SETTINGS = 24, Settings()
BENCHMARK = market_evaluation.MarketBenchmark(SETTINGS)


def test_known_policies_get_what_they_deserve() -> None:
    followed, opposed, held, babbled = (
        BENCHMARK.evaluate(Scripted(rule), SEEDS) for rule in (follow, oppose, hold, babble)
    )
    assert followed.advantage > 0.95  # all but the rumours are worth following
    assert opposed.reward == pytest.approx(-followed.reward)
    assert (held.reward, held.advantage, held.valid_share) == (0.0, 0.0, 1.0)
    assert (babbled.reward, babbled.valid_share) == (SETTINGS.rewards.invalid_action_reward, 0.0)
    assert 0.3 < followed.reward < 0.6


def test_every_policy_is_asked_the_same_in_batches() -> None:
    first, second = Scripted(follow), Scripted(hold)
    BENCHMARK.evaluate(first, SEEDS)
    BENCHMARK.evaluate(second, SEEDS)
    assert first.asked == second.asked
    assert len(set(first.asked)) == len(first.asked) == 24 * 12
    assert max(first.batches) == market_evaluation.BATCH


def test_no_game_and_no_lesson_shows_these_boards() -> None:
    policy = Scripted(hold)
    BENCHMARK.evaluate(policy, SEEDS)
    boards = {prompt.rpartition("\n")[0] for prompt in policy.asked}  # without the account
    demonstrations = {
        demonstration.messages[-1].content.rpartition("\n")[0] for demonstration in draw_demonstrations(0, 2000)
    }
    assert not boards & demonstrations
    mine = {
        board.at
        for seed in (0, market_evaluation.FIRST_SEED)
        for board, _ in draw_room(seed, "2026-11-05T14:00", 0, Clock(4, 12))
    }
    assert not mine & {board.at for board in market_evaluation._boards(market_evaluation.FIRST_SEED)}


def test_the_version_names_what_decides_the_numbers() -> None:
    versions = {
        market_evaluation.MarketBenchmark(settings).version(seeds)
        for settings, seeds in (
            (SETTINGS, 24),
            (SETTINGS, 25),
            (Settings(invalid_action_reward=-0.4), 24),
            (Settings(perp_full_scale_percent=5), 24),
        )
    }
    assert len(versions) == 4
    assert market_evaluation.MarketBenchmark(Settings(gate_margin=0.5)).version(24) in versions
