"""Groups and advantages."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.domain.grouping import compared, group_key

WINDOW = "2026-10-01T00:00"


class TestGroupKey:
    def test_times_in_the_same_slot_are_the_same_moment(self) -> None:
        keys = [group_key(WINDOW, ms, 30) for ms in (60_000, 89_999, 90_000)]
        assert keys[0] == keys[1] != keys[2]

    def test_the_same_moment_of_another_window_is_another_group(self) -> None:
        assert group_key(WINDOW, 60_000, 30) != group_key("2026-10-01T01:00", 60_000, 30)

    def test_modes(self) -> None:
        assert group_key(WINDOW, 0, 30, "window", "a") == group_key(WINDOW, 10**9, 30, "window", "b")
        assert group_key(WINDOW, 0, 30, "agent", "a") == group_key(WINDOW, 10**9, 30, "agent", "a")
        assert group_key(WINDOW, 0, 30, "agent", "a") != group_key(WINDOW, 0, 30, "agent", "b")


REWARDS = st.lists(st.floats(-2, 2), min_size=1, max_size=8)


class TestCompared:
    @settings(max_examples=100, derandomize=True)
    @given(st.lists(REWARDS, min_size=1, max_size=4))
    def test_advantages_are_rewards_less_the_groups_mean(self, groups: list[list[float]]) -> None:
        rows = [(f"g{n}", reward) for n, rewards in enumerate(groups) for reward in rewards]
        got = compared([group for group, _ in rows], [reward for _, reward in rows])
        expected = [reward - statistics.fmean(rewards) for rewards in groups for reward in rewards]
        assert got.advantage.tolist() == pytest.approx(expected, abs=1e-7)
        assert got.size.tolist() == [len(rewards) for rewards in groups for _ in rewards]

    def test_the_spread_of_a_group(self) -> None:
        assert compared(["g", "h", "g"], [1.0, 5.0, -0.5]).reward_range.tolist() == [1.5, 0.0, 1.5]

    def test_the_best_ranks_first_and_of_equals_the_earlier(self) -> None:
        got = compared(["g", "h", "g", "g", "g"], [0.5, 9.0, 1.0, 0.5, -1.0])
        assert got.rank.tolist() == [1, 0, 0, 2, 3]

    def test_nothing_is_compared_with_nothing(self) -> None:
        assert [len(column) for column in compared([], [])] == [0, 0, 0, 0]

    @pytest.mark.parametrize("rewards", [(0.3, 0.1 + 0.2), (1e16, 1e16 + 2), (-1e16, -1e16 - 2), (5e-324, 0.0)])
    def test_rounding_is_no_reward_range(self, rewards: tuple[float, float]) -> None:
        assert rewards[0] != rewards[1]
        assert compared(["g", "g", "h"], [*rewards, 1.0]).reward_range.tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("rewards", [(0.3, 0.3 + 1e-8), (1e16, 1e16 + 1e3), (1e-8, 0.0)])
    def test_a_small_difference_is_one(self, rewards: tuple[float, float]) -> None:
        assert compared(["g", "g"], rewards).reward_range.tolist() == [abs(rewards[0] - rewards[1])] * 2
