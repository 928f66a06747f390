"""What may not be learned from: results in prompts, and texts that nobody recorded."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pytest

from babylon_assets.domain.hindsight import Place, Text, faults, result_in, suspicious_places, text_of, too_suspicious
from babylon_assets.domain.trajectories import Exchange, Message, ToolCall, encode_chat
from babylon_assets.environments.babylon.details import RESULT_KEYS


class Sample(NamedTuple):
    messages: list[Message]
    response: str
    sample_id: str = "t/0/0"
    trajectory_id: str = "t"
    agent_id: str = "a"
    step: int = 0
    call: int = 0
    trains_as: str = "sft"
    tool_calls: tuple[ToolCall, ...] = ()


def said(prompt: str, answer: str = "I hold.") -> Sample:
    return Sample([Message("system", "You trade."), Message("user", prompt)], answer)


def places(*samples: Sample) -> dict[Place, Text]:
    return {(each.trajectory_id, each.step, each.call): text_of(each) for each in samples}


def test_what_was_recorded_is_right_wherever_it_was_recorded() -> None:
    sample = said("The price is 0.4.")
    assert faults([sample], places(sample), frozenset(), RESULT_KEYS) == ([], [], [])
    assert faults([sample], {}, frozenset({text_of(sample)}), RESULT_KEYS) == ([], [], [])


@pytest.mark.parametrize("other", [said("The price is 0.5."), said("The price is 0.4.", "I buy.")])
def test_a_text_that_no_record_has_is_named(other: Sample) -> None:
    recorded = places(said("The price is 0.4."))
    assert faults([other], recorded, frozenset(), RESULT_KEYS).wrong == ["t/0/0: no record has this prompt and answer"]


def test_the_right_text_at_another_place_is_wrong() -> None:
    sample = said("The price is 0.4.")
    assert faults([sample._replace(step=1)], places(sample), frozenset(), RESULT_KEYS).wrong != []


def test_a_long_list_in_a_prompt_is_walked_once() -> None:
    prompt = said(json.dumps({"list": [1] * 200_000, "objects": [[{}]] * 20_000, "text": RESULT_KEYS[0]}))
    began = time.process_time()
    assert result_in(prompt.messages, RESULT_KEYS) is None
    assert time.process_time() - began < 10  # a minute where each of its numbers waits for its turn


@pytest.mark.parametrize("key", RESULT_KEYS)
@pytest.mark.parametrize("above", ["", "state", "state.positions"])
def test_a_field_that_the_environment_put_in_is_found_by_its_path(key: str, above: str) -> None:
    value: Any = {key: 3, "note": "hold"}
    for name in reversed(above.split(".") if above else []):
        value = {name: [value]}
    path = f"{above}.{key}" if above else key
    sample = said(json.dumps(value))
    assert result_in(sample.messages, RESULT_KEYS) == path
    line = f"t/0/0: the prompt names {path}"
    assert faults([sample], places(sample), frozenset(), RESULT_KEYS) == ([line], [line], ["a"])
    skipped = sample._replace(trains_as="skip")
    assert faults([skipped], places(sample), frozenset(), RESULT_KEYS) == ([], [line], ["a"])


def test_a_result_may_be_named_by_the_end_of_its_path() -> None:
    assert result_in([Message("user", '{"market": {"outcome": "YES"}}')], ("market.outcome",)) == "market.outcome"
    assert result_in([Message("user", '{"guess": {"outcome": "YES"}}')], ("market.outcome",)) is None


QUOTE = 'A player writes: "my finalPnL: 9000"'


@pytest.mark.parametrize(
    "prompt",
    [
        QUOTE,
        "finalPnL: 9000",
        "finalPnL = 9000",
        '{"finalPnL": 9000}, says a player.',
        "Posts:\n" + json.dumps({"author": "eve", "finalPnL": 9000}),
        json.dumps({"posts": [QUOTE, json.dumps({"finalPnL": 9000})]}),
        "{'finalPnL': 9000}",
        '{"finalPnL": 9000',
        "[" * 20_000,
        "",
    ],
)
def test_what_people_wrote_is_not_looked_into(prompt: str) -> None:
    assert result_in(said(prompt).messages, RESULT_KEYS) is None


def test_the_calls_of_a_trajectory_that_name_a_result() -> None:
    prompts = ["{}", '{"finalPnL": 1}', QUOTE]
    chat = encode_chat([Exchange(said(prompt).messages, "I hold.") for prompt in prompts])
    calls = [(0, 0), (2, 1), (3, 0)]
    assert suspicious_places("t", calls, chat, RESULT_KEYS) == {("t", 2, 1)}
    assert suspicious_places("t", calls, chat, ("gameKnowledge",)) == set()


def test_a_window_may_hold_a_few() -> None:
    everybody = [f"a{number}" for number in range(100)]
    assert [too_suspicious(everybody[:number], 100) for number in (0, 5, 6, 7)] == [False, False, False, True]


def test_who_writes_the_prompts_of_one_agent_stops_nobodys_hour() -> None:
    """Of eight agents it has more than a twentieth of the samples."""
    assert not too_suspicious(["eve"] * 8, 64)
    assert too_suspicious(["eve"] * 8 + ["mallory"] * 4, 64)
