"""Intervals, pairs and importance weights, against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from babylon_assets.domain.evaluations import ScoredAnswer, bootstrap, off_policy, paired, preferences


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        values = rng.normal(0.3, 1.0, size=60)
        found = bootstrap(values, seed=seed)
        assert found.low < found.value < found.high
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 198  # 95% of 200, less what a bootstrap of 60 loses


def test_the_interval_follows_the_seed_and_narrows_with_the_confidence() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.5]
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    wide, narrow = bootstrap(values, confidence=0.99), bootstrap(values, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_pairs_take_out_what_both_have_in_common() -> None:
    rng = np.random.default_rng(2)
    boards = rng.normal(0, 1, size=40)
    found = paired((boards + 0.01).tolist(), boards.tolist())
    assert found == pytest.approx((0.01, 0.01, 0.01))
    alone = bootstrap(boards)
    assert alone.high - alone.low > 0.4
    with pytest.raises(ValueError, match="argument"):
        paired([1.0, 2.0], [1.0])


def test_preferences_are_over_the_pairs_that_differ() -> None:
    answers = [
        ScoredAnswer("a", 1.0, -1.0),
        ScoredAnswer("a", 0.0, -3.0),
        ScoredAnswer("a", 0.0, -2.0),  # pairs: (-1+3) and (-1+2)
        ScoredAnswer("b", 0.5, -1.0),
        ScoredAnswer("b", 0.5, -9.0),  # no pair: equal rewards
        ScoredAnswer("c", -1.0, -1.0),
        ScoredAnswer("c", 2.0, -4.0),  # the better one is the unlikelier one
    ]
    assert preferences(answers) == {"a": 1.5, "c": -3.0}


def test_an_off_policy_estimate_is_the_weighted_mean() -> None:
    behaviour = [math.log(0.5)] * 4
    policy = [math.log(0.75), math.log(0.75), math.log(0.25), math.log(0.25)]
    # weights 1.5, 1.5, 0.5, 0.5: (1.5 * (1 + 0) + 0.5 * (-1 + 1)) / 4, and 4^2 / (2.25 * 2 + 0.25 * 2)
    found = off_policy(policy, behaviour, [1.0, 0.0, -1.0, 1.0], 3)
    assert found.value == pytest.approx(1.5 / 4)
    assert found.effective == pytest.approx(16 / 5)
    assert (found.behaviour, found.refused) == (0.25, None)


def test_no_estimate_is_given_of_a_policy_whose_own_answers_were_not_given() -> None:
    """It would answer otherwise nine times of ten; the good answers that were given are alike to it."""
    found = off_policy([math.log(0.05)] * 20, [math.log(0.5)] * 20, [1.0] * 20, 16)
    assert (found.value, found.effective) == (None, pytest.approx(20.0))
    assert found.refused == "about 10% of what it would answer is among the answers given, at least 50% are needed"
    certain = off_policy([0.0] * 20, [-2000.0] * 20, [1.0] * 20, 16)
    assert certain.value == 1.0


def test_an_estimate_on_few_effective_answers_is_refused() -> None:
    found = off_policy([0.0, -9.0, -9.0], [-9.0, 0.0, 0.0], [1.0, 0.0, 0.0], 2)
    assert found.value is None
    assert found.effective == pytest.approx(1.0)
    assert found.refused == "its effective sample size is 1.0 of 3, at least 2 are needed"
    assert "no held-out answer" in (off_policy([], [], [], 2).refused or "")
