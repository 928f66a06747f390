"""Scorers and their weighted sum."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from babylon_assets.domain import rewards
from babylon_assets.domain.errors import SettingsError
from babylon_assets.environments.babylon.details import steps_frame
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.environments.babylon.scorers import HeuristicScorer, score_game_steps
from tests.environments.babylon.test_outcomes import AT_MS, bought, resolved, steps_of, tables


def valued(*rows: dict[str, Any]) -> pd.DataFrame:
    """Steps of agent `a1` a minute apart, worth nothing unless they say otherwise."""
    changes = [{"timestamp_ms": AT_MS + 60_000 * n} | row for n, row in enumerate(rows)]
    known = {"worth", "state"}
    steps = steps_of(*({k: v for k, v in row.items() if k not in known} for row in changes))
    return steps.assign(
        worth=[row.get("worth", 0.0) for row in changes], state=[row.get("state", "no_trade") for row in changes]
    )


class TestHeuristic:
    def test_the_games_formula_by_hand(self) -> None:
        steps = valued(
            {"pnl": 700.0, "worth": 0.4, "state": "final"},
            {"pnl": 760.0, "worth": -0.2, "state": "final"},
            {"pnl": 800.0, "worth": 0.1, "state": "final"},
            {"pnl": 900.0},
        )
        expected = 0.5 * (200 + 1000) / 2000 + 0.3 * 2 / 3 + 0.2 * 4 / 20
        assert HeuristicScorer().score(steps).tolist() == pytest.approx([expected] * 4)

    def test_what_was_earned_before_the_window_does_not_count(self) -> None:
        idle = HeuristicScorer().score(valued({"pnl": 9000.0}, {"pnl": 9000.0}))
        assert idle.tolist() == pytest.approx([0.25 + 0.15 + 0.02] * 2)

    def test_time_and_not_the_order_of_rows_says_what_is_first(self) -> None:
        steps = valued({"pnl": 0.0}, {"pnl": None}, {"pnl": 1000.0})
        expected = 0.5 + 0.15 + 0.2 * 3 / 20
        assert HeuristicScorer().score(steps.iloc[[2, 0, 1]]).tolist() == pytest.approx([expected] * 3)

    def test_agents_and_windows_are_scored_apart(self) -> None:
        steps = valued({"pnl": 0.0}, {"pnl": 1000.0}, {"agent_id": "a2"}, {"window": "2026-10-01T01:00"})
        scores = HeuristicScorer().score(steps)
        assert scores[0] == scores[1] == pytest.approx(0.5 + 0.15 + 0.02)
        assert scores[2] == scores[3] == pytest.approx(0.25 + 0.15 + 0.01)

    def test_gains_and_activity_are_capped(self) -> None:
        steps = valued(*({"pnl": 10_000.0 * n, "worth": 1.0, "state": "final"} for n in range(50)))
        assert HeuristicScorer().score(steps).tolist() == pytest.approx([1.0] * 50)

    def test_what_is_pending_neither_won_nor_lost(self) -> None:
        steps = valued({"worth": math.nan, "state": "pending"}, {"worth": math.nan, "state": "invalid"})
        assert HeuristicScorer().score(steps).tolist() == pytest.approx([0.25 + 0.15 + 0.02] * 2)


def score(steps: pd.DataFrame, weights: dict[str, float] | None = None, invalid_reward: float = -0.5) -> pd.DataFrame:
    added = {"heuristic": HeuristicScorer()}
    return rewards.score_steps(steps, weights or rewards.DEFAULT_WEIGHTS, invalid_reward, added)


class TestReward:
    def test_the_weighted_sum_of_the_components(self) -> None:
        scored = score(valued({"worth": 0.6, "state": "final"}), {"outcome": 2.0, "heuristic": 0.5})
        assert scored["reward"][0] == pytest.approx(2 * 0.6 + 0.5 * scored["heuristic"][0])

    def test_an_invalid_action_gets_the_reward_of_the_setting(self) -> None:
        scored = score(valued({"worth": math.nan, "state": "invalid"}), {"outcome": 1.0}, -0.7)
        assert [scored[name][0] for name in ("outcome", "reward", "final")] == [-0.7, -0.7, True]

    @pytest.mark.parametrize(("state", "final"), [("pending", False), ("unknown", True)])
    def test_what_is_not_known_has_no_reward(self, state: str, final: bool) -> None:
        scored = score(valued({"worth": math.nan, "state": state}))
        assert math.isnan(scored["reward"][0])
        assert scored["final"][0] == final

    def test_a_component_without_weight_cannot_hide_a_reward(self) -> None:
        scored = score(
            valued({"worth": math.nan, "state": "pending"}), {"outcome": 0.0, "heuristic": 1.0, "format": 1.0}
        )
        assert scored["reward"][0] == pytest.approx(scored["heuristic"][0] + 1.0)

    def test_a_weight_for_no_scorer_is_refused_by_name(self) -> None:
        with pytest.raises(SettingsError, match="charm"):
            score(valued({}), {"charm": 1.0})

    def test_versions_of_what_is_used(self) -> None:
        assert rewards.versions({"outcome": 1.0, "format": 0.1}) == {"outcome": "1", "format": "1"}


class TestWindow:
    def test_from_steps_to_rewards(self) -> None:
        steps = steps_of({}, {"success": False, "invalid": True}, {"market_id": "m2"})
        known = tables(trades=[bought(0.9), bought(0.5, market_id="m2")], markets=[resolved(True), {"market_id": "m2"}])
        scored = score_game_steps(steps, known, weights={"outcome": 1.0})
        assert scored["state"].tolist() == ["final", "invalid", "pending"]
        assert scored["reward"][:2].tolist() == pytest.approx([0.1, -0.5])
        assert scored["final"].tolist() == [True, True, False]
        assert set(rewards.KEY_COLUMNS) < set(scored.columns)

    def test_a_window_without_steps(self) -> None:
        scored = score_game_steps(steps_frame([]), OutcomeTables.empty())
        assert scored.empty
        assert {"reward", "final", "outcome", "heuristic"} < set(scored.columns)
