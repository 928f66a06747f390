"""What can be read of a text of steps that cannot be read whole: the smallest part is dropped, and counted by name."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.json_nesting import CUT_VALUES, cut_nesting
from babylon_assets.environments.babylon.steps import FAULTS, LooseStep, Step, read_steps, tidy

CUT_CHARACTERS = "cut characters"
UNREADABLE_STEPS, UNREADABLE_CALLS = "steps that cannot be read", "calls that cannot be read"
UNREADABLE_STATES = "states that cannot be read"


def read_or_salvage(text: bytes) -> tuple[list[Step], Counter[str]]:
    """The steps of a row's text, and how much of what was dropped to read them.

    Half a character becomes the replacement character, and a value that is nested too deeply null. A step without a
    readable action is dropped whole; a call or a state that cannot be read, alone.

    Raises:
        MsgspecError, ValueError, OverflowError, RecursionError: it is no JSON array, or none of its steps can be read.
    """
    try:
        return read_steps(text), Counter()
    except FAULTS as error:
        reason = error
    text, halves = replace_halves(text)
    text, deep = cut_nesting(text)
    dropped = +Counter({CUT_CHARACTERS: halves, CUT_VALUES: deep})
    try:
        return read_steps(text), dropped
    except msgspec.ValidationError as error:
        reason = error
    except FAULTS as error:
        raise reason from error
    steps = [step for value in _values(text, reason) if (step := _salvage(value, dropped)) is not None]
    if not steps:
        raise reason
    return steps, dropped


def _values(text: bytes, reason: BaseException) -> list[Any]:
    try:
        values = json.loads(text, parse_constant=lambda _: None)
    except FAULTS:
        raise reason from None
    if not isinstance(values, list):
        raise reason
    return values


def _salvage(value: Any, dropped: Counter[str]) -> Step | None:
    """One step without what of it cannot be read; None when that is its action."""
    action = value.get("action") if isinstance(value, dict) else None
    if not isinstance(action, dict) or not isinstance(action.get("actionType"), str):
        dropped[UNREADABLE_STEPS] += 1
        return None
    state, calls = value.get("environmentState"), value.get("llmCalls")
    if state is not None and not isinstance(state, dict):
        dropped[UNREADABLE_STATES] += 1
        state = None
    kept = {name: field for name, field in value.items() if name not in ("environmentState", "llmCalls")}
    try:
        step = tidy(msgspec.convert({**kept, "environmentState": state}, LooseStep))
    except FAULTS:
        dropped[UNREADABLE_STEPS] += 1
        return None
    if calls is not None:
        step.llm_calls = _calls(calls, dropped)
    return step


def _calls(values: Any, dropped: Counter[str]) -> list[Any]:
    """The calls of a step that can be read."""
    calls: list[Any] = []
    if not isinstance(values, list):
        dropped[UNREADABLE_CALLS] += 1
        return calls
    for call in values:
        try:
            step = msgspec.convert({"action": {"actionType": "HOLD"}, "llmCalls": [call]}, LooseStep)
            calls += tidy(step).llm_calls or []
        except FAULTS:
            dropped[UNREADABLE_CALLS] += 1
    return calls
