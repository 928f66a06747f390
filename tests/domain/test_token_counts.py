"""What became of a training's tokens: each is counted once, and all of them are."""

from __future__ import annotations

import pytest

from babylon_assets.domain.token_counts import count_tokens, explain_early_end, format_trainable, format_trained

Step = dict[str, float]


def step(tokens: float, **more: float) -> Step:
    return {"tokens": tokens, **more}


@pytest.mark.parametrize(
    ("steps", "chosen", "counted"),
    [
        ([step(40), step(40)], 80, {"trained_tokens": 80}),
        ([step(40), step(40), step(40, again=1), step(40, again=1)], 80, {"trained_tokens": 80}),
        ([step(40), step(30, undone=1)], 100, {"trained_tokens": 40, "undone_tokens": 30, "unseen_tokens": 30}),
        ([step(40), step(60, undone=1)], 100, {"trained_tokens": 40, "undone_tokens": 60}),
        ([step(40), step(60), step(40, again=1, undone=1)], 100, {"trained_tokens": 100}),
        ([step(40, undone=1), step(40, undone=1), step(40)], 100, {"trained_tokens": 40, "unseen_tokens": 60}),
    ],
    ids=["whole", "two passes", "ended early", "last one undone", "second pass undone", "first step at half its size"],
)
def test_every_token_is_counted_once(steps: list[Step], chosen: int, counted: dict[str, int]) -> None:
    assert count_tokens(steps, chosen) == counted
    assert sum(counted.values()) == chosen


def test_a_pass_that_ended_early_says_why_and_what_became_of_all_tokens() -> None:
    said = explain_early_end({"trained_tokens": 5051, "undone_tokens": 1270, "unseen_tokens": 1209})
    assert said.startswith("a step went further from the policy before than MAX_KL allows and was undone")
    assert said.endswith(
        "of 7,530 tokens 5,051 were trained on, 1,270 were those of the undone step and 1,209 were not seen"
    )


def test_of_a_last_step_that_was_undone_it_is_said_how_much_was_trained_on() -> None:
    undone = {"trained_tokens": 7099, "undone_tokens": 396, "undone_steps": 1.0}
    assert explain_early_end(undone).endswith(
        "and was undone: of 7,495 tokens 7,099 were trained on and 396 were those of the undone step"
    )
    assert format_trained(undone) == "7,099 of 7,495"


def test_nothing_is_said_of_a_training_that_kept_all_of_its_tokens() -> None:
    assert explain_early_end({"trained_tokens": 40}) == explain_early_end({"trainable_tokens": 40}) == ""
    assert (format_trained({"trained_tokens": 7776}), format_trained({})) == ("7,776", None)


@pytest.mark.parametrize(
    ("counts", "words"),
    [({"policy_gradient": 9}, "1,209"), ({"sft": 1}, "about 1,209"), ({"recompute": 2, "sft": 0}, "about 1,209")],
)
def test_tokens_that_are_counted_by_their_characters_are_said_to_be_about_as_many(
    counts: dict[str, int], words: str
) -> None:
    assert format_trainable(1209, counts) == words
