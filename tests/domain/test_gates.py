"""Small steps pass and bad ones do not, each with its reason in words."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from babylon_assets.domain.evaluations import Interval
from babylon_assets.domain.gates import (
    Band,
    Challenger,
    GateVerdict,
    Measurement,
    Rules,
    ServedResults,
    may_promote,
    out_of_band,
)
from babylon_assets.domain.verdict_table import verdict_rows

BOARDS = np.random.default_rng(0).normal(0.3, 0.1, size=48)


def measured(name: str, shift: float = 0.0, *, seed: int = 1, valid: float = 0.98, noise: float = 0.02) -> Measurement:
    """A policy whose true reward is `shift` away, with what is left of the luck after pairing."""
    rng = np.random.default_rng(seed)
    rewards = BOARDS + shift + rng.normal(0, noise, size=len(BOARDS))
    shares = np.clip(valid + rng.normal(0, 0.02, size=len(BOARDS)), 0, 1)
    return Measurement(name, rewards.tolist(), shares.tolist())


def challenger(market: Measurement | None, **changes: Any) -> Challenger:
    fields: dict[str, Any] = {
        "name": "agent@2",
        "market": market,
        "numbers": {"loss": 0.1, "grad_norm": 0.2},
        "trained_tokens": 5000,
        "window_status": "trained",
    }
    return Challenger(**{**fields, **changes})


CHAMPION = measured("agent@1", seed=2)


def broken(verdict: GateVerdict) -> list[str]:
    return [finding.rule for finding in verdict.findings if not finding.holds]


def test_steps_that_are_not_worse_pass() -> None:
    passed = [
        may_promote(challenger(measured("agent@2", shift, seed=seed)), CHAMPION).passed
        for shift in (0.0, 0.002, 0.02)
        for seed in range(10, 30)
    ]
    assert sum(passed) >= 57  # of 60: two or three in a hundred of those that are exactly as good are taken for worse


def test_a_worse_step_is_refused_with_its_numbers() -> None:
    verdict = may_promote(challenger(measured("agent@2", -0.03)), CHAMPION)
    assert broken(verdict) == ["market"]
    assert verdict.why.startswith("its market reward is -0.0")
    assert "against agent@1 (served): worse with confidence" in verdict.why
    allowed = may_promote(challenger(measured("agent@2", -0.03)), CHAMPION, rules=Rules(margin=0.05))
    assert allowed.passed


def test_a_slow_decline_is_caught_by_the_best_so_far() -> None:
    """Each step is too small to be told from noise; the gate without its memory lets all of them pass."""
    best = champion = measured("agent@0", 0.0, seed=100)
    forgetful = remembering = 0
    for step in range(1, 16):
        asked = measured(f"agent@{step}", -0.003 * step, seed=100 + step)
        forgetful += may_promote(challenger(asked), champion, None, Rules(margin=0.01)).passed
        verdict = may_promote(challenger(asked), champion, best, Rules(margin=0.01))
        remembering += verdict.passed
        champion = asked
    assert forgetful == 15
    assert remembering < 12
    assert broken(verdict) == ["best"]
    assert "agent@0 (best so far)" in verdict.why


def test_fewer_valid_actions_are_refused() -> None:
    verdict = may_promote(challenger(measured("agent@2", 0.05, valid=0.9)), CHAMPION)
    assert broken(verdict) == ["valid"]
    assert "share of valid actions is -0.0" in verdict.why


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({"numbers": {"loss": None, "grad_norm": 0.1}}, "finite", "loss of its training was not finite"),
        ({"numbers": {"loss": 0.1, "grad_norm": float("inf")}}, "finite", "grad_norm of its training was not finite"),
        ({"window_status": "thin"}, "window", "its window is thin"),
        ({"trained_tokens": 0}, "window", "its window is thin"),
        ({"agreement": -0.97}, "rewards", "correlate -0.97 with what the actions were worth: they were turned around"),
        ({"quarantined": 0.6}, "hygiene", "60% of its window's rows were corrupt, at most 50% may be"),
        ({"off_policy": Interval(-0.5, -0.8, -0.2), "off_policy_groups": 12}, "preference", "worse with confidence"),
    ],
)
def test_each_rule_refuses_alone(changes: dict[str, Any], rule: str, words: str) -> None:
    verdict = may_promote(challenger(measured("agent@2", 0.05), **changes), CHAMPION)
    assert broken(verdict) == [rule]
    assert words in verdict.why


def test_an_off_policy_evaluation_of_few_groups_says_nothing() -> None:
    few = challenger(measured("agent@2"), off_policy=Interval(-0.5, -0.8, -0.2), off_policy_groups=7)
    verdict = may_promote(few, CHAMPION)
    assert verdict.passed
    assert "7 groups of held-out answers, 8 are needed to compare; a group is two answers or more" in verdict.why


def test_what_cannot_be_played_is_judged_on_the_rest_and_says_so() -> None:
    verdict = may_promote(challenger(None, unmeasured="its weights lie elsewhere"), CHAMPION)
    assert verdict.passed
    assert "it was not measured on a benchmark: its weights lie elsewhere" in verdict.why
    assert not may_promote(challenger(None, numbers={"loss": None}), None).passed


def test_an_environment_without_a_benchmark_has_no_rule_of_the_market() -> None:
    verdict = may_promote(challenger(None), None)
    [row] = [row for row in verdict_rows(verdict.record()) if row.rule == "benchmark"]
    assert (row.answer, row.finding) == ("no evidence", "it was not measured on a benchmark: its environment has none")
    assert row.bound and "market" not in f"{verdict.record()['findings']}"


def test_a_verdict_keeps_every_finding_and_the_rules() -> None:
    kept = may_promote(challenger(measured("agent@2")), CHAMPION, measured("agent@0", seed=3)).record()
    assert kept["passed"] is True
    rules = [finding["rule"] for finding in kept["findings"]]
    assert rules == ["finite", "window", "hygiene", "market", "best", "valid", "best valid", "preference"]
    assert kept["rules"] == dataclasses.asdict(Rules())


@pytest.mark.parametrize(
    ("served", "before", "said"),
    [
        (ServedResults(500, 0.97, 0.2), ServedResults(500, 0.98, 0.25), None),
        (
            ServedResults(500, 0.85, 0.2),
            ServedResults(500, 0.98, 0.25),
            "share of valid actions is 0.85, before it was 0.98",
        ),
        (ServedResults(500, 0.97, -0.1), ServedResults(500, 0.98, 0.25), "its reward is -0.100, before it was +0.250"),
        (ServedResults(500, 0.97, None), ServedResults(500, 0.98, 0.25), None),
        (ServedResults(20, 0.1, -1.0), ServedResults(500, 0.98, 0.25), None),
        (ServedResults(500, 0.1, -1.0), ServedResults(20, 0.98, 0.25), None),
    ],
)
def test_the_band_of_the_live_policy(served: ServedResults, before: ServedResults, said: str | None) -> None:
    found = out_of_band(served, before, Band())
    assert found is None if said is None else said in (found or "")
