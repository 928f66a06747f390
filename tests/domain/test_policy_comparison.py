"""Two policies side by side: by kind of decision, and where they differ most."""

from __future__ import annotations

from math import nan

from babylon_assets.domain.evaluations import Interval
from babylon_assets.domain.policy_comparison import (
    ComparedPolicies,
    MeasuredTwice,
    PromptTwice,
    compare_kinds,
    compare_prompts,
    explain_comparison,
    rank_differing,
)
from babylon_assets.domain.prompt_evaluation import PromptAnswer


def answer(reward: float | None, agent: str = "a", valid: bool = True) -> PromptAnswer:
    return PromptAnswer(agent, "2026-11-05T14:00", reward, valid)


def test_the_difference_is_the_second_less_the_first_over_what_both_answered() -> None:
    first = {"1": answer(0.0), "2": answer(0.5, "b"), "3": answer(None, "c"), "only": answer(9.0)}
    second = {"1": answer(1.0), "2": answer(0.5, "b"), "3": answer(0.3, "c", False)}
    difference, shares = compare_prompts(first, second)
    assert difference is not None
    assert (difference.value, shares) == (0.5, (1.0, 2 / 3))
    assert compare_prompts(first, {}) == (None, (None, None))


def test_a_sentence_says_which_policy_is_better_and_by_what() -> None:
    def sentence(**differences: Interval | None) -> str:
        rows = [MeasuredTwice(name, None, None, None, gain, (None, None)) for name, gain in differences.items()]
        return explain_comparison(
            ComparedPolicies(first="m@0", second="m@3", measured=rows, prompts=0, kinds=[], differing=[])
        )

    better, unclear = Interval(0.1, 0.05, 0.2), Interval(0.1, -0.05, 0.2)
    assert sentence(market=better) == "m@3 is clearly better than m@0 by market"
    both = sentence(recorded_prompts=unclear, market=Interval(-0.1, -0.2, -0.05))
    assert both == "m@3 is clearly worse than m@0 by market; not clearly better or worse by recorded prompts"
    assert sentence(off_policy=None, market=Interval(0.1, nan, nan)) == ""


def test_kinds_are_told_apart_and_the_most_frequent_comes_first() -> None:
    first = {"1": answer(0.0), "2": answer(0.2, "b"), "3": answer(1.0), "4": answer(None), "5": answer(0.0)}
    second = {name: answer((kept.reward or 0.0) + 0.5, kept.agent) for name, kept in first.items()}
    rows = compare_kinds(first, second, {"1": "BUY", "2": "BUY", "3": "HOLD", "4": "HOLD"})
    assert [(row.kind, row.prompts) for row in rows] == [("BUY", 2), ("HOLD", 1)]
    assert (rows[0].first, rows[0].second) == (0.1, 0.6)
    assert abs(rows[0].difference.value - 0.5) < 1e-12


def test_prompts_are_ranked_by_what_their_answers_are_apart() -> None:
    gaps = {"same": (0.5, 0.5), "far": (-1.0, 1.0), "near": (0.1, 0.2), "unknown": (None, -0.5)}
    prompts = [
        PromptTwice(name, "", answer(first), answer(second), ("", ""), ("", ""))
        for name, (first, second) in gaps.items()
    ]
    assert [twice.prompt for twice in rank_differing(prompts)] == ["far", "unknown", "near"]
    assert [twice.prompt for twice in rank_differing(prompts, 1)] == ["far"]
