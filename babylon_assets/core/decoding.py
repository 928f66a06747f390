"""One row of the game's record, decoded: a trajectory, or a reason why it cannot be one.

The reader is strict about structure (an array of steps, each an object with an action) and lenient about
values (numbers written as strings, null or NaN where a number may be missing, keys that it does not know).
What an agent did wrong is not a reason to refuse a row: an action that failed comes out as a step with
`invalid`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from babylon_assets.core.lineage import bytes_id
from babylon_assets.core.trajectories import (
    CallHead,
    Exchange,
    KeptSamples,
    MarketType,
    Message,
    Quarantined,
    RawSample,
    Shape,
    Side,
    StepFacts,
    TrajectoryRecord,
    encode_chat,
)


class SourceRow(msgspec.Struct, frozen=True, gc=False):
    """One row of the game's `trajectories`; times are aware UTC, `steps_json` is the text as UTF-8 bytes."""

    window: str
    window_given: bool
    trajectory_id: str
    agent_id: str
    scenario_id: str | None
    start_time: datetime
    end_time: datetime
    final_status: str
    final_balance: float | None
    final_pnl: float | None
    steps_json: bytes


class _Environment(msgspec.Struct, gc=False, rename="camel"):
    agent_balance: Any = None
    agent_pnl: Any = msgspec.field(default=None, name="agentPnL")
    timestamp: Any = None


class _Action(msgspec.Struct, gc=False, rename="camel"):
    action_type: str
    parameters: Any = None
    success: Any = None
    error: Any = None


class _Call(msgspec.Struct, gc=False, rename="camel"):
    model: str | None = None
    purpose: str | None = None
    call_id: str | None = None
    system_prompt: str | None = None
    user_prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    response: str | None = None
    temperature: Any = None
    timestamp: Any = None


class _Step(msgspec.Struct, gc=False, rename="camel"):
    action: _Action
    step_number: Any = None
    step_id: Any = None
    timestamp: Any = None
    environment_state: _Environment | None = None
    llm_calls: list[_Call] | None = None


class _UnreadableError(Exception):
    """A row that cannot become a record; `args` are the reason and the place."""


#: Of what a row becomes: another one has windows read again whose rows did not change.
VERSION = "2"
#: What decoding a hostile text may raise.
_FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_STEPS = msgspec.json.Decoder(list[_Step])
_HOLDS = frozenset({"HOLD", "WAIT", "PASS", "NONE", "NO_ACTION", "NOOP"})
_TRADES = re.compile(r"TRAD|BUY|SELL|LONG|SHORT|PERP|OPEN_|CLOSE_|SHARES|POSITION")
_SIDE_IN_NAME = re.compile(r"(?:^|_)(YES|NO|LONG|SHORT)(?:_|$)")
_SIDES: dict[str, Side] = {"yes": "yes", "no": "no", "long": "long", "short": "short"}
_SIDE_KEYS = ("side", "outcome", "direction", "position")
_AMOUNT_KEYS = ("amount", "size", "shares", "quantity")
_MARKET_OF_SIDE: dict[Side, MarketType] = {
    "yes": "prediction",
    "no": "prediction",
    "long": "perp",
    "short": "perp",
}
#: Epoch milliseconds beyond the year 9999 are no time.
_LATEST_MS = 253_402_300_799_999
_LARGEST_STEP = 2**31 - 1
_Order = tuple[MarketType | None, str | None, str | None, Side | None, float | None]
_NO_ORDER: _Order = (None, None, None, None, None)
_NOWHERE = _Environment()
_NOTHING: dict[str, Any] = {}


def decode_row(row: SourceRow) -> TrajectoryRecord | Quarantined:
    """Decode one row. Never raises for what a row holds: what cannot be read comes back as `Quarantined`."""
    row_hash = hash_row(row)
    try:
        steps = _read_steps(row.steps_json)
        return _record(row, steps, row_hash)
    except _UnreadableError as error:
        reason, place = error.args
    except RecursionError:
        reason, place = "nested too deeply", "stepsJson"
    return Quarantined(row.window, row.trajectory_id, reason, place, row_hash)


def hash_row(row: SourceRow) -> str:
    """The hash of everything that was read of a row."""
    facts = (row.window, row.trajectory_id, row.agent_id, row.scenario_id, row.start_time, row.end_time)
    ends = (row.final_status, row.final_balance, row.final_pnl)
    return bytes_id([repr(facts).encode("utf-8", "backslashreplace"), repr(ends).encode(), row.steps_json])


def _read_steps(text: bytes) -> list[_Step]:
    try:
        return _STEPS.decode(text)
    except _FAULTS as error:
        if b"NaN" not in text and b"Infinity" not in text:
            raise _unreadable(error) from error
    try:
        return _STEPS.decode(_without_nan(text))
    except _FAULTS as error:
        raise _unreadable(error) from error


def _without_nan(text: bytes) -> bytes:
    """The text with Python's NaN and Infinity, which are not JSON, written as null."""
    return msgspec.json.encode(json.loads(text, parse_constant=lambda _: None))


def _unreadable(error: BaseException) -> _UnreadableError:
    if isinstance(error, RecursionError):
        return _UnreadableError("nested too deeply", "stepsJson")
    text, _, path = str(error).partition(" - at `")
    if isinstance(error, msgspec.ValidationError):
        return _UnreadableError(text, "stepsJson" + path.rstrip("`").removeprefix("$"))
    at_byte = re.search(r"\((?:byte|char) (\d+)\)", text)
    return _UnreadableError(f"not JSON: {text}", f"stepsJson byte {at_byte[1]}" if at_byte else "stepsJson")


def _record(row: SourceRow, steps: list[_Step], row_hash: str) -> TrajectoryRecord:
    start_ms = int(row.start_time.timestamp() * 1000)
    numbers = _step_numbers(steps)
    return TrajectoryRecord(
        row.window,
        row.trajectory_id,
        row.agent_id,
        row.scenario_id,
        _shape(row, steps),
        row.start_time,
        row.end_time,
        row.final_status,
        _number(row.final_balance),
        _number(row.final_pnl),
        row_hash,
        _samples(numbers, steps),
        [_facts(number, step, start_ms) for number, step in zip(numbers, steps, strict=True)],
    )


def _samples(numbers: list[int], steps: list[_Step]) -> Sequence[RawSample]:
    """The calls of purpose action, ordered by step and call."""
    order = range(len(steps)) if numbers == sorted(numbers) else sorted(range(len(steps)), key=numbers.__getitem__)
    heads: list[CallHead] = []
    said: list[Exchange] = []
    for position in order:
        for index, call in enumerate(steps[position].llm_calls or ()):
            if call.purpose == "action" and call.response is not None:
                said.append(Exchange(_messages(call, call.response, position, index), call.response))
                heads.append(_head(numbers[position], index, call, call.response))
    return KeptSamples(heads, encode_chat(said)) if heads else []


def _step_numbers(steps: list[_Step]) -> list[int]:
    """The steps' own numbers if they are distinct counts, else their positions: a number names one step."""
    numbers = [_number(step.step_number) for step in steps]
    given = [int(n) for n in numbers if n is not None and n.is_integer() and 0 <= n <= _LARGEST_STEP]
    return given if len(set(given)) == len(steps) else list(range(len(steps)))


def _shape(row: SourceRow, steps: list[_Step]) -> Shape:
    if not row.window_given or any(step.step_id is not None for step in steps):
        return "logger"
    return "full" if any(step.llm_calls for step in steps) else "live"


def _facts(number: int, step: _Step, start_ms: int) -> StepFacts:
    action, environment = step.action, step.environment_state or _NOWHERE
    at = step.timestamp
    timestamp = at if type(at) is int and 0 < at <= _LATEST_MS else _milliseconds(at)
    if timestamp is None:
        timestamp = start_ms
    moment = None if environment.timestamp is None else _milliseconds(environment.timestamp)
    kind, name = _kind(action.action_type)
    success, error = action.success, action.error
    success = success if success is None or type(success) is bool else _flag(success)
    error = None if error is None else _error(error)
    order = _order(kind, action.parameters) if _is_trading(kind) else _NO_ORDER
    return StepFacts(
        number,
        timestamp,
        timestamp if moment is None else moment,
        _number(environment.agent_balance),
        _number(environment.agent_pnl),
        name,
        *order,
        success,
        error,
        kind == "INVALID_ACTION" or (success is False and error is not None and kind not in _HOLDS),
    )


@lru_cache(maxsize=4096)
def _kind(action_type: str) -> tuple[str, str]:
    """An action's name for comparison, and as it is kept."""
    return action_type.upper(), _clean(action_type)


def _order(kind: str, parameters: Any) -> _Order:
    """What a trading action was about, from its parameters and, where these are silent, from its name."""
    get = parameters.get if isinstance(parameters, dict) else _NOTHING.get
    market_id, ticker = _text(get("marketId")), _text(get("ticker"))
    side = next((given for key in _SIDE_KEYS if (given := _side(get(key)))), None) or _side_in_name(kind)
    amount = next((number for key in _AMOUNT_KEYS if (number := _number(get(key))) is not None), None)
    return _market_type(get("marketType"), market_id, ticker, side), market_id, ticker, side, amount


@lru_cache(maxsize=4096)
def _is_trading(kind: str) -> bool:
    return _TRADES.search(kind) is not None


@lru_cache(maxsize=4096)
def _side_in_name(kind: str) -> Side | None:
    found = _SIDE_IN_NAME.search(kind)
    return _SIDES[found[1].lower()] if found else None


def _side(value: Any) -> Side | None:
    return _SIDES.get(value.strip().lower()) if isinstance(value, str) else None


def _market_type(value: Any, market_id: str | None, ticker: str | None, side: Side | None) -> MarketType | None:
    given = value.lower() if isinstance(value, str) else ""
    if given.startswith("perp"):
        return "perp"
    if given.startswith("prediction"):
        return "prediction"
    if market_id is not None or ticker is not None:
        return "prediction" if ticker is None else "perp"
    return _MARKET_OF_SIDE[side] if side else None


def _head(number: int, index: int, call: _Call, response: str) -> CallHead:
    time_ms, temperature = _milliseconds(call.timestamp), _number(call.temperature)
    call_id = _clean(call.call_id) if call.call_id else None
    return CallHead(number, index, call_id, _clean(call.model or ""), temperature, time_ms, len(response))


def _messages(call: _Call, response: str, position: int, index: int) -> list[Message]:
    """The conversation up to the answer, which is not part of its own prompt."""
    if call.messages:
        where = f"stepsJson[{position}].llmCalls[{index}].messages"
        messages = [_message(message, where) for message in call.messages]
        if messages[-1] == Message("assistant", response):
            messages.pop()
    else:
        prompts = (("system", call.system_prompt), ("user", call.user_prompt))
        messages = [Message(role, content) for role, content in prompts if content]
    if not messages:
        raise _UnreadableError("a call of purpose action without a prompt", f"stepsJson[{position}].llmCalls[{index}]")
    return messages


def _message(message: dict[str, Any], where: str) -> Message:
    """One message of a recorded conversation; content in parts is joined if every part is text."""
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise _UnreadableError("a message without a role or a text", where)
    return Message(role, content)


def _number(value: Any) -> float | None:
    """A finite float from a number or a numeral, else None."""
    if value is None:
        return None
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _milliseconds(value: Any) -> int | None:
    if type(value) is int and 0 < value <= _LATEST_MS:
        return value
    number = _number(value)
    return int(number) if number is not None and 0 < number <= _LATEST_MS else None


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _error(value: Any) -> str | None:
    """The error as text; an error that is an object keeps its JSON."""
    if value is None or value is False or value in ("", {}, []):
        return None
    return _clean(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return _clean(str(value)) or None


def _clean(text: str) -> str:
    """PostgreSQL's text holds no NUL: in a name or an id it becomes the replacement character."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
