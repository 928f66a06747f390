"""The texts that a scorer may ask for: prompt, answer and reasoning of each step."""

from __future__ import annotations

import msgspec
import pandas as pd

from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.joining import join_calls
from babylon_assets.domain.step_texts import TEXT_COLUMNS, add_texts
from tests.domain.rows import call, record, step
from tests.environments.brevity import brevity


def texts(calls: list[dict[str, object]], *, others: int = 0) -> pd.DataFrame:
    steps = [step(0, llmCalls=calls), *(step(1 + n, llmCalls=[]) for n in range(others))]
    decoded = record(steps)
    records = [msgspec.structs.replace(decoded, samples=list(decoded.samples))]
    return add_texts(steps_frame(records), join_calls(records, {}).samples)


def test_a_step_has_the_texts_of_its_call() -> None:
    [row] = texts([call(systemPrompt="Trade.", userPrompt="A 40", response="buy")])[list(TEXT_COLUMNS)].values.tolist()
    assert row == ["Trade.\n\nA 40", "buy", None]


def test_what_was_thought_is_no_part_of_the_answer() -> None:
    found = texts([call(response="<think>A is cheap.\nBuy it.</think>\n buy ")]).iloc[0]
    assert (found["answer"], found["reasoning"]) == ("buy", "A is cheap.\nBuy it.")


def test_the_last_call_of_a_step_is_its_answer() -> None:
    assert texts([call(response="first"), call(response="last", callId="other")])["answer"].tolist() == ["last"]


def test_a_step_without_a_call_has_no_texts_and_no_number() -> None:
    steps = texts([call(response="x" * 500)], others=1)
    assert steps["prompt"].isna().tolist() == [False, True]
    numbers = brevity.score(steps)
    assert numbers[0] == 0.75 and pd.isna(numbers[1])
