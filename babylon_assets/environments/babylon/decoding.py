"""One row of the game's record, decoded: a trajectory, or a reason why it cannot be one.

The reader is strict about structure (an array of steps, each an object with an action) and lenient about values, as
`environments.babylon.steps` reads them. What an agent did wrong is not a reason to refuse a row: an action that failed
comes out as a step with `invalid`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from babylon_assets.domain.content_ids import bytes_id
from babylon_assets.domain.trajectories import (
    CallHead,
    Exchange,
    Message,
    Quarantined,
    RawSample,
    Shape,
    StepFacts,
    StoredSamples,
    TrajectoryRecord,
    encode_chat,
)
from babylon_assets.environments.babylon.details import MarketType, Side, instruments, make_step
from babylon_assets.environments.babylon.steps import FAULTS, Call, Parameters, Step, StepState, as_number, read_steps


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


class _UnreadableError(Exception):
    """A row that cannot become a record; `args` are the reason and the place."""


#: Of what a row becomes: another one has windows read again whose rows did not change.
VERSION = "2"
_HOLDS = frozenset({"HOLD", "WAIT", "PASS", "NONE", "NO_ACTION", "NOOP"})
_TRADES = re.compile(r"TRAD|BUY|SELL|LONG|SHORT|PERP|OPEN_|CLOSE_|SHARES|POSITION")
_SIDE_IN_NAME = re.compile(r"(?:^|_)(YES|NO|LONG|SHORT)(?:_|$)")
_SIDES: dict[str, Side] = {"yes": "yes", "no": "no", "long": "long", "short": "short"}
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
_NOWHERE, _NOTHING = StepState(), Parameters()


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


def _read_steps(text: bytes) -> list[Step]:
    try:
        return read_steps(text)
    except FAULTS as error:
        raise _unreadable(error) from error


def _unreadable(error: BaseException) -> _UnreadableError:
    if isinstance(error, RecursionError):
        return _UnreadableError("nested too deeply", "stepsJson")
    text, _, path = str(error).partition(" - at `")
    if isinstance(error, msgspec.ValidationError):
        return _UnreadableError(text, "stepsJson" + path.rstrip("`").removeprefix("$"))
    at_byte = re.search(r"\((?:byte|char) (\d+)\)", text)
    return _UnreadableError(f"not JSON: {text}", f"stepsJson byte {at_byte[1]}" if at_byte else "stepsJson")


def _record(row: SourceRow, steps: list[Step], row_hash: str) -> TrajectoryRecord:
    start_ms = int(row.start_time.timestamp() * 1000)
    numbers = _step_numbers(steps)
    facts = [_facts(number, step, start_ms) for number, step in zip(numbers, steps, strict=True)]
    return TrajectoryRecord(
        row.window,
        row.trajectory_id,
        row.agent_id,
        row.scenario_id,
        _shape(row, steps),
        row.start_time,
        row.end_time,
        row.final_status,
        as_number(row.final_balance),
        as_number(row.final_pnl),
        row_hash,
        _samples(numbers, steps),
        facts,
        instruments(facts),
    )


def _samples(numbers: list[int], steps: list[Step]) -> Sequence[RawSample]:
    """The calls of purpose action, ordered by step and call."""
    order = range(len(steps)) if numbers == sorted(numbers) else sorted(range(len(steps)), key=numbers.__getitem__)
    heads: list[CallHead] = []
    exchanges: list[Exchange] = []
    for position in order:
        for index, call in enumerate(steps[position].llm_calls or ()):
            if call.purpose == "action" and call.response is not None:
                exchanges.append(Exchange(_messages(call, call.response, position, index), call.response))
                heads.append(_head(numbers[position], index, call, call.response))
    return StoredSamples(heads, encode_chat(exchanges)) if heads else []


def _step_numbers(steps: list[Step]) -> list[int]:
    """The steps' own numbers if they are distinct counts, else their positions: a number names one step."""
    numbers = [step.step_number for step in steps]
    given = [n for n in numbers if n is not None and 0 <= n <= _LARGEST_STEP]
    return given if len(set(given)) == len(steps) else list(range(len(steps)))


def _shape(row: SourceRow, steps: list[Step]) -> Shape:
    if not row.window_given or any(step.step_id is not None for step in steps):
        return "logger"
    return "full" if any(step.llm_calls for step in steps) else "live"


def _facts(number: int, step: Step, start_ms: int) -> StepFacts:
    action, environment = step.action, step.environment_state or _NOWHERE
    at, seen = step.timestamp, environment.timestamp
    timestamp = at if at is not None and 0 < at <= _LATEST_MS else start_ms
    kind = _kind(action.action_type)
    error = _clean(action.error) if action.error else None
    return make_step(
        number,
        timestamp,
        seen if seen is not None and 0 < seen <= _LATEST_MS else timestamp,
        environment.agent_balance,
        environment.agent_pnl,
        kind.name,
        *(_order(kind, action.parameters or _NOTHING) if kind.trades else _NO_ORDER),
        action.success,
        error,
        kind.invalid or (action.success is False and error is not None and not kind.holds),
    )


class _Kind(NamedTuple):
    """What an action's name says: how it is kept, and whether it trades, on which side, holds, or could not be read."""

    name: str
    trades: bool
    side: Side | None
    holds: bool
    invalid: bool


@lru_cache(maxsize=4096)
def _kind(action_type: str) -> _Kind:
    name = action_type.upper()
    side = _SIDE_IN_NAME.search(name)
    return _Kind(
        _clean(action_type),
        _TRADES.search(name) is not None,
        _SIDES[side[1].lower()] if side else None,
        name in _HOLDS,
        name == "INVALID_ACTION",
    )


def _order(kind: _Kind, given: Parameters) -> _Order:
    """What a trading action was about, from its parameters and, where these are silent, from its name."""
    market_id = _clean(given.market_id) if given.market_id else None
    ticker = _clean(given.ticker) if given.ticker else None
    sides = (given.side, given.outcome, given.direction, given.position)
    side = next((word for name in sides if name and (word := _side(name))), kind.side)
    amounts = (given.amount, given.size, given.shares, given.quantity)
    amount = next((number for number in amounts if number is not None), None)
    return _market_type(given.market_type, market_id, ticker, side), market_id, ticker, side, amount


@lru_cache(maxsize=4096)
def _side(name: str) -> Side | None:
    return _SIDES.get(name.strip().lower())


def _market_type(value: str | None, market_id: str | None, ticker: str | None, side: Side | None) -> MarketType | None:
    given = value.lower() if value else ""
    if given.startswith("perp"):
        return "perp"
    if given.startswith("prediction"):
        return "prediction"
    if market_id is not None or ticker is not None:
        return "prediction" if ticker is None else "perp"
    return _MARKET_OF_SIDE[side] if side else None


def _head(number: int, index: int, call: Call, response: str) -> CallHead:
    at, model = call.timestamp, call.model
    return CallHead(
        number,
        index,
        _clean(call.call_id) if call.call_id else None,
        _clean(model) if model else "",
        call.temperature,
        at if at is not None and 0 < at <= _LATEST_MS else None,
        len(response),
    )


def _messages(call: Call, response: str, position: int, index: int) -> list[Message]:
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


def _clean(text: str) -> str:
    """PostgreSQL's text holds no NUL: in a name or an id it becomes the replacement character."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
