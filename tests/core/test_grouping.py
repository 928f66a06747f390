"""Groups and advantages."""

from __future__ import annotations

import math
import statistics

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.core.grouping import advantages, group_key, spreads

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


class TestAdvantages:
    @settings(max_examples=100, derandomize=True)
    @given(st.lists(REWARDS, min_size=1, max_size=4))
    def test_they_are_rewards_less_the_groups_mean(self, groups: list[list[float]]) -> None:
        rows = [(f"g{n}", reward) for n, rewards in enumerate(groups) for reward in rewards]
        got = advantages(pd.DataFrame(rows, columns=["group", "reward"]))
        expected = [reward - statistics.fmean(rewards) for rewards in groups for reward in rewards]
        assert got.tolist() == pytest.approx(expected, abs=1e-7)

    def test_a_reward_that_is_not_known_takes_no_part(self) -> None:
        got = advantages(pd.DataFrame({"group": ["g", "g", "g"], "reward": [1.0, math.nan, 0.0]}))
        assert got[0] == pytest.approx(0.5)
        assert math.isnan(got[1])
        assert got[2] == -got[0]

    def test_the_spread_of_a_group(self) -> None:
        frame = pd.DataFrame({"group": ["g", "h", "g"], "reward": [1.0, 5.0, -0.5]})
        assert spreads(frame).tolist() == [1.5, 0.0, 1.5]
