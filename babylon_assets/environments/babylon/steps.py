"""The steps of a trajectory as the game writes them, and how they are read out of a row's text.

A text whose values are of the types below is read straight into them. Another one is read as it is and tidied: numbers
written as strings, null or NaN where a number may be missing, lists and objects where a text is expected. Both ways
give the same steps; what they mean is decided in `environments.babylon.decoding`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from babylon_assets.domain.json_nesting import NESTED_TOO_DEEPLY, is_too_deep


class StepState(msgspec.Struct, gc=False, rename="camel"):
    """What the game reports before an action; times in epoch milliseconds, money in virtual dollars."""

    agent_balance: float | None = None
    agent_pnl: float | None = msgspec.field(default=None, name="agentPnL")
    timestamp: int | None = None


class Parameters(msgspec.Struct, gc=False, rename="camel"):
    """What an action was about; the game has four names for a side and for an amount."""

    market_type: str | None = None
    market_id: str | None = None
    ticker: str | None = None
    side: str | None = None
    reasoning: str | None = None
    outcome: str | None = None
    direction: str | None = None
    position: str | None = None
    amount: float | None = None
    size: float | None = None
    shares: float | None = None
    quantity: float | None = None


class Result(msgspec.Struct, gc=False, rename="camel"):
    """What the game answered to an action."""

    success: bool | None = None
    error: str | None = None
    market_id: str | None = None
    ticker: str | None = None
    side: str | None = None


class Action(msgspec.Struct, gc=False, rename="camel"):
    """What the agent did, and what the game said to it."""

    action_type: str
    parameters: Parameters | None = None
    success: bool | None = None
    error: str | None = None
    reasoning: str | None = None
    result: Result | None = None


class Call(msgspec.Struct, gc=False, rename="camel"):
    """One call of a model. Tool calls have two spellings; the game writes neither yet, an agent's client may."""

    model: str | None = None
    purpose: str | None = None
    call_id: str | None = None
    system_prompt: str | None = None
    user_prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    response: str | None = None
    temperature: float | None = None
    timestamp: int | None = None
    tools: Any = None
    tool_calls: Any = None
    tool_calls_of_wire: Any = msgspec.field(default=None, name="tool_calls")
    raw_reasoning_trace: Any = None


class Step(msgspec.Struct, gc=False, rename="camel"):
    """One step; a step id is what only the game's second recorder gives."""

    action: Action
    step_number: int | None = None
    step_id: Any = None
    timestamp: int | None = None
    environment_state: StepState | None = None
    llm_calls: list[Call] | None = None


class _LooseStepState(msgspec.Struct, gc=False, rename="camel"):
    agent_balance: Any = None
    agent_pnl: Any = msgspec.field(default=None, name="agentPnL")
    timestamp: Any = None


class _LooseAction(msgspec.Struct, gc=False, rename="camel"):
    action_type: str
    parameters: Any = None
    success: Any = None
    error: Any = None
    reasoning: Any = None
    result: Any = None


class _LooseCall(Call, gc=False, rename="camel"):
    temperature: Any = None
    timestamp: Any = None


class LooseStep(msgspec.Struct, gc=False, rename="camel"):
    action: _LooseAction
    step_number: Any = None
    step_id: Any = None
    timestamp: Any = None
    environment_state: _LooseStepState | None = None
    llm_calls: list[_LooseCall] | None = None


#: What decoding a hostile text may raise.
FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_TEXTS = ("side", "reasoning", "outcome", "direction", "position")
_NUMBERS = ("amount", "size", "shares", "quantity")
_decode = msgspec.json.Decoder(list[Step]).decode
_decode_loosely = msgspec.json.Decoder(list[LooseStep]).decode


def read_steps(text: bytes) -> list[Step]:
    """The steps of a row's text.

    Raises:
        MsgspecError, ValueError, OverflowError, RecursionError: it is not JSON, or not of the structure of steps.
    """
    try:
        return _decode(text)
    except FAULTS:
        return read_loosely(text)


def read_loosely(text: bytes) -> list[Step]:
    """As `read_steps`, whatever the types of the values are."""
    try:
        steps = _decode_loosely(text)
    except FAULTS:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        steps = _decode_loosely(_without_nan(text))
    return [tidy(step) for step in steps]


def _without_nan(text: bytes) -> bytes:
    """The text with Python's NaN and Infinity, which are not JSON, written as null."""
    return msgspec.json.encode(json.loads(text, parse_constant=lambda _: None))


def tidy(step: LooseStep) -> Step:
    """The step with each value as its type has it, or None."""
    number, seen = as_number(step.step_number), step.environment_state
    return Step(
        _tidied_action(step.action),
        int(number) if number is not None and number.is_integer() else None,
        step.step_id,
        _whole(step.timestamp),
        None
        if seen is None
        else StepState(as_number(seen.agent_balance), as_number(seen.agent_pnl), _whole(seen.timestamp)),
        None if step.llm_calls is None else [_tidied_call(call) for call in step.llm_calls],
    )


def _tidied_action(action: _LooseAction) -> Action:
    given = action.parameters if isinstance(action.parameters, dict) else {}
    market_type = given.get("marketType")
    others: dict[str, Any] = {name: value for name in _TEXTS if isinstance(value := given.get(name), str)}
    others |= {name: as_number(given.get(name)) for name in _NUMBERS}
    parameters = Parameters(
        market_type if isinstance(market_type, str) else None,
        _text(given.get("marketId")),
        _text(given.get("ticker")),
        **others,
    )
    reasoning = action.reasoning if isinstance(action.reasoning, str) else None
    result = _tidied_result(action.result) if isinstance(action.result, dict) else None
    return Action(action.action_type, parameters, _flag(action.success), _error(action.error), reasoning, result)


def _tidied_result(result: dict[str, Any]) -> Result:
    names = ("marketId", "ticker", "side")
    return Result(_flag(result.get("success")), _error(result.get("error")), *(_text(result.get(n)) for n in names))


def _tidied_call(call: _LooseCall) -> Call:
    return Call(
        call.model,
        call.purpose,
        call.call_id,
        call.system_prompt,
        call.user_prompt,
        call.messages,
        call.response,
        as_number(call.temperature),
        _whole(call.timestamp),
        call.tools,
        call.tool_calls,
        call.tool_calls_of_wire,
        call.raw_reasoning_trace,
    )


def as_number(value: Any) -> float | None:
    """A finite float from a number or a numeral, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    number = as_number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str | None:
    return None if isinstance(value, bool) or not isinstance(value, str | int) else str(value)


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _error(value: Any) -> str | None:
    """The error as text; an error that is an object keeps its JSON."""
    if value is None or value is False or value in ("", {}, []):
        return None
    if isinstance(value, str):
        return value
    return NESTED_TOO_DEEPLY if is_too_deep(value) else msgspec.json.encode(value).decode()
