"""Credit within a tick: own worth unless a discount is set, then the discounted rest as far as it is known."""

from __future__ import annotations

import pytest

from babylon_assets.domain.credit import discount_rest
from babylon_assets.domain.samples import StepScore, StepScores

OUTCOMES: dict[str, float | None] = {"outcome": 1.0}


def scores(*rewards: float | None, states: str = "") -> dict[tuple[str, int], StepScore]:
    words = {"u": "unknown", "p": "pending", "": "final", "f": "final"}
    letters = states or "f" * len(rewards)
    return {("a", n): (r, words[s], OUTCOMES) for n, (r, s) in enumerate(zip(rewards, letters, strict=True))}


def credited(*rewards: float | None, states: str = "", discount: float = 0.5) -> list[float | None]:
    return [reward for reward, _, _ in discount_rest(scores(*rewards, states=states), discount).values()]


@pytest.mark.parametrize(
    ("discount", "expected"),
    [(0.0, [1.0, -0.5, 2.0]), (0.5, [1.25, 0.5, 2.0]), (1.0, [2.5, 1.5, 2.0])],
)
def test_a_step_is_credited_with_the_discounted_rest_of_its_tick(discount: float, expected: list[float]) -> None:
    assert credited(1.0, -0.5, 2.0, discount=discount) == expected


def test_without_a_discount_the_scores_are_the_same_object() -> None:
    given = scores(1.0, 2.0)
    assert discount_rest(given, 0.0) is given


def test_what_can_never_be_known_adds_nothing_and_what_is_not_known_yet_is_waited_for() -> None:
    assert credited(1.0, None, states="fu") == [1.0, None]
    assert credited(1.0, 0.5, None, states="ffp") == [None, None, None]
    assert credited(None, 0.5, states="uf") == [None, 0.5]
    waiting = discount_rest(scores(1.0, None, states="fp"), 1.0)
    assert waiting["a", 0] == (None, "pending", OUTCOMES)


def test_ticks_are_apart_and_gaps_between_steps_count_as_one() -> None:
    given: StepScores = {("a", 0): (1.0, "final", {}), ("b", 1): (8.0, "final", {}), ("a", 7): (2.0, "final", {})}
    assert [reward for reward, _, _ in discount_rest(given, 0.5).values()] == [2.0, 8.0, 2.0]
