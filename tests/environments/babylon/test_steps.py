"""The two ways of reading steps, straight into their types and loosely, give the same steps."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.environments.babylon import steps
from babylon_assets.environments.babylon.steps import read_loosely, read_steps
from tests.domain.rows import call, step

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("marketType", "marketId", "ticker", "side", "outcome", "direction", "position"), WORDS),
        **dict.fromkeys(("amount", "size", "shares", "quantity"), FINITE | st.integers(-(2**53), 2**53) | st.none()),
    },
)
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "stepNumber": st.integers(-5, 2**40),
        "timestamp": st.none() | st.integers(-5, 2**45),
        "environmentState": st.none()
        | st.fixed_dictionaries({}, optional={"agentBalance": FINITE, "agentPnL": st.none() | FINITE}),
        "action": st.builds(
            lambda kind, given, done, said: {"actionType": kind, "parameters": given, "success": done, "error": said},
            WORDS,
            PARAMETERS,
            st.none() | st.booleans(),
            st.none() | WORDS,
        ),
        "llmCalls": st.lists(st.builds(lambda at, warm: call(timestamp=at, temperature=warm), st.integers(), FINITE)),
    },
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(STEPS, max_size=3))
def test_values_of_the_games_own_types_are_read_alike_both_ways(changes: list[dict[str, Any]]) -> None:
    text = json.dumps([step(number, **change) for number, change in enumerate(changes)]).encode()
    straight, loose = read_steps(text), read_loosely(text)
    for one in (*straight, *loose):
        if one.action.error == "":
            one.action.error = None  # an empty error is none, which is decided where a step's facts are made
    assert straight == loose


def test_the_games_own_types_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "read_loosely", lambda _: pytest.fail("read twice"))
    assert read_steps(json.dumps([step(0)]).encode())[0].action.parameters is not None


@pytest.mark.parametrize(
    "odd", [{"stepNumber": "1"}, {"timestamp": "17"}, {"action": {"actionType": "BUY", "error": {}}}]
)
def test_other_types_are_tidied(odd: dict[str, Any]) -> None:
    text = json.dumps([step(0, **odd)]).encode()
    with pytest.raises(msgspec.ValidationError):
        steps._decode(text)
    assert read_steps(text) == read_loosely(text)
