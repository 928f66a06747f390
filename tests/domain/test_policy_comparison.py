"""Two policies side by side: by kind of decision, and where they differ most."""

from __future__ import annotations

from babylon_assets.domain.policy_comparison import PromptTwice, compare_kinds, compare_prompts, rank_differing
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
