"""What may not be learned from: results in prompts, and texts that nobody recorded."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from babylon_assets.domain.hindsight import faults, result_in, text_of
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.babylon.details import RESULT_KEYS


class Sample(NamedTuple):
    messages: list[Message]
    response: str
    sample_id: str = "t/0/0"
    trajectory_id: str = "t"
    step: int = 0
    call: int = 0


def said(prompt: str, answer: str = "I hold.") -> Sample:
    return Sample([Message("system", "You trade."), Message("user", prompt)], answer)


def places(*samples: Sample) -> dict[tuple[str, int, int], tuple[tuple[Message, ...], str]]:
    return {(each.trajectory_id, each.step, each.call): text_of(each) for each in samples}


def test_what_was_recorded_is_right_wherever_it_was_recorded() -> None:
    sample = said("The price is 0.4.")
    assert faults([sample], places(sample), frozenset(), RESULT_KEYS) == []
    assert faults([sample], {}, frozenset({text_of(sample)}), RESULT_KEYS) == []


@pytest.mark.parametrize("other", [said("The price is 0.5."), said("The price is 0.4.", "I buy.")])
def test_a_text_that_no_record_has_is_named(other: Sample) -> None:
    recorded = places(said("The price is 0.4."))
    assert faults([other], recorded, frozenset(), RESULT_KEYS) == ["t/0/0: no record has this prompt and answer"]


def test_the_right_text_at_another_place_is_wrong() -> None:
    sample = said("The price is 0.4.")
    assert faults([sample._replace(step=1)], places(sample), frozenset(), RESULT_KEYS) != []


@pytest.mark.parametrize("key", RESULT_KEYS)
@pytest.mark.parametrize("form", ['{{"{}": 3}}', "{{'{}': 3}}", "{}: 3", "{} = 3", '{{\\"{}\\" : 3}}'])
def test_a_result_as_a_key_is_found(key: str, form: str) -> None:
    sample = said(form.format(key))
    assert result_in(sample.messages, RESULT_KEYS) == key
    assert faults([sample], places(sample), frozenset(), RESULT_KEYS) == [f"t/0/0: the prompt names {key}"]


@pytest.mark.parametrize("prompt", ["Watch your pnlChange closely.", "yourfinalPnL: 3", "finalPnLs: 3", ""])
def test_a_word_alone_is_no_result(prompt: str) -> None:
    assert result_in(said(prompt).messages, RESULT_KEYS) is None
