"""One row of the game's record, decoded: a trajectory, or a reason why it cannot be one.

The reader is strict about structure (an array of steps, each an object with an action) and lenient about values, as
`environments.babylon.steps` reads them. What cannot be read is dropped in the smallest part and counted. What an agent
did wrong is not a reason to refuse a row: an action that failed comes out as a step with `invalid`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from babylon_assets.domain.content_ids import bytes_id
from babylon_assets.domain.trajectories import (
    CallHead,
    Exchange,
    Quarantined,
    RawSample,
    Shape,
    StepFacts,
    StoredSamples,
    TrajectoryRecord,
    encode_chat,
)
from babylon_assets.environments.babylon.call_texts import NO_ANSWER, has_answer, read_exchange
from babylon_assets.environments.babylon.details import instruments, make_step
from babylon_assets.environments.babylon.logged_calls import add_logged_calls
from babylon_assets.environments.babylon.rules import BABYLON, GameRules
from babylon_assets.environments.babylon.salvage import read_or_salvage
from babylon_assets.environments.babylon.steps import FAULTS, Call, Parameters, Result, Step, StepState, as_number
from babylon_assets.environments.babylon.words import (
    MARKET_OF_SIDE,
    MarketType,
    Side,
    read_action,
    read_market_type,
    read_side,
)


class SourceRow(msgspec.Struct, frozen=True, gc=False):
    """One row of the game's `trajectories`; times are aware UTC, `steps_json` is the text as UTF-8 bytes.

    `calls_json` has its calls in `llm_call_logs`, where its steps have no texts (`logged_calls.call_columns`).
    """

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
    attributes: dict[str, str] = {}
    calls_json: bytes | None = None


class _UnreadableError(Exception):
    """A row that cannot become a record; `args` are the reason and the place."""


#: Of what a row becomes: another one has windows read again whose rows did not change.
VERSION = "3"
#: Epoch milliseconds beyond the year 9999 are no time.
_LATEST_MS = 253_402_300_799_999
_LARGEST_STEP = 2**31 - 1
_NOWHERE, _NOTHING, _SILENT = StepState(), Parameters(), Result()
#: So begins the reasoning of an action that the game chose itself, all answers of the step being refused.
FALLBACK = "Parser fallback selected"


def decode_row(row: SourceRow, rules: GameRules = BABYLON) -> TrajectoryRecord | Quarantined:
    """Decode one row. Never raises for what a row holds: what cannot be read comes back as `Quarantined`."""
    row_hash = hash_row(row)
    try:
        steps, dropped = _read_steps(row.steps_json)
        return _record(row, steps, row_hash, rules, dropped)
    except _UnreadableError as error:
        reason, place = error.args
    except RecursionError:
        reason, place = "nested too deeply", "stepsJson"
    return Quarantined(row.window, row.trajectory_id, reason, place, row_hash)


def hash_row(row: SourceRow) -> str:
    """The hash of everything that was read of a row."""
    facts = (row.window, row.trajectory_id, row.agent_id, row.scenario_id, row.start_time, row.end_time)
    ends: tuple[Any, ...] = (row.final_status, row.final_balance, row.final_pnl)
    if row.attributes:
        ends += (sorted(row.attributes.items()),)
    named = [repr(part).encode("utf-8", "backslashreplace") for part in (facts, ends)]
    return bytes_id([*named, row.steps_json, *([row.calls_json] if row.calls_json else [])])


def _read_steps(text: bytes) -> tuple[list[Step], Counter[str]]:
    try:
        return read_or_salvage(text)
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


def _record(
    row: SourceRow, steps: list[Step], row_hash: str, rules: GameRules, dropped: Counter[str]
) -> TrajectoryRecord:
    numbers = _step_numbers(steps)
    if row.calls_json:
        add_logged_calls(steps, numbers, row.trajectory_id, row.calls_json, dropped)
    times = _times(row, steps)
    facts = [
        _facts(number, step, at, until, rules)
        for number, step, at, until in zip(numbers, steps, times, _ends(row, times), strict=True)
    ]
    # The game writes 0 for the money of its NPCs, whom it keeps no account of.
    has_account = "npc" not in row.attributes
    if not has_account:
        facts = [structs.replace(fact, detail=_without_money(fact.detail)) for fact in facts]
    return TrajectoryRecord(
        window=row.window,
        trajectory_id=row.trajectory_id,
        agent_id=row.agent_id,
        scenario_id=row.scenario_id,
        shape=_shape(row, steps),
        start_time=row.start_time,
        end_time=row.end_time,
        final_status=row.final_status,
        final_balance=as_number(row.final_balance) if has_account else None,
        final_pnl=as_number(row.final_pnl) if has_account else None,
        content_hash=row_hash,
        samples=_samples(numbers, steps, rules, dropped),
        facts=facts,
        references=instruments(facts),
        attributes=row.attributes,
        dropped=dict(dropped),
    )


def _without_money(detail: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if name not in ("balance", "pnl")}


def _times(row: SourceRow, steps: Sequence[Step]) -> list[int]:
    """Epoch milliseconds of each step; one without a time has that of the trajectory's start."""
    start = int(row.start_time.timestamp() * 1000)
    return [at if (at := step.timestamp) is not None and 0 < at <= _LATEST_MS else start for step in steps]


def _ends(row: SourceRow, times: Sequence[int]) -> list[int]:
    """When the trajectory's next step after each begins, or else when it ends, both rounded up."""
    end = -int(-row.end_time.timestamp() * 1000 // 1)
    order = [*sorted(set(times)), end]
    return [max(at, order[bisect_right(order, at, hi=len(order) - 1)]) for at in times]


def _samples(numbers: list[int], steps: list[Step], rules: GameRules, dropped: Counter[str]) -> Sequence[RawSample]:
    """The calls that chose the steps' actions, ordered by step and call."""
    order = range(len(steps)) if numbers == sorted(numbers) else sorted(range(len(steps)), key=numbers.__getitem__)
    heads: list[CallHead] = []
    exchanges: list[Exchange] = []
    for position in order:
        for index, call, refused in _answers(steps[position], rules, dropped):
            exchange = read_exchange(call)
            if isinstance(exchange, str):
                dropped[exchange] += 1
                continue
            exchanges.append(exchange)
            heads.append(_head(numbers[position], index, call, exchange, refused))
    return StoredSamples(heads, encode_chat(exchanges)) if heads else []


def _answers(step: Step, rules: GameRules, dropped: Counter[str]) -> Iterator[tuple[int, Call, bool]]:
    """The calls of a step that were to choose its action, and whether their answers were refused.

    The last one was carried out; the game refused those before it, and all of them where it fell back on an action of
    its own. Calls of another purpose get no credit; where a step has no other, the last of them chose its action.
    """
    calls = [entry for entry in enumerate(step.llm_calls or ()) if has_answer(entry[1])]
    if unanswered := len(step.llm_calls or ()) - len(calls):
        dropped[NO_ANSWER] += unanswered
    purposes = ("action", None) if rules.unnamed_calls_act else ("action",)
    choosing = [entry for entry in calls if entry[1].purpose in purposes] or calls[-1:]
    none_stands = _is_fallback(step)
    for place, (index, call) in enumerate(choosing):
        yield index, call, none_stands or place < len(choosing) - 1


def _is_fallback(step: Step) -> bool:
    """Whether the game chose the action itself, because no answer could be read."""
    parameters = step.action.parameters or _NOTHING
    return any((text or "").startswith(FALLBACK) for text in (step.action.reasoning, parameters.reasoning))


def _step_numbers(steps: list[Step]) -> list[int]:
    """The steps' own numbers if they are distinct counts, else their positions: a number names one step."""
    numbers = [step.step_number for step in steps]
    given = [n for n in numbers if n is not None and 0 <= n <= _LARGEST_STEP]
    return given if len(set(given)) == len(steps) else list(range(len(steps)))


def _shape(row: SourceRow, steps: list[Step]) -> Shape:
    if not row.window_given or any(step.step_id is not None for step in steps):
        return "logger"
    return "full" if any(step.llm_calls for step in steps) else "live"


def _facts(number: int, step: Step, at: int, until: int, rules: GameRules) -> StepFacts:
    action, environment = step.action, step.environment_state or _NOWHERE
    seen, result = environment.timestamp, action.result or _SILENT
    word = read_action(action.action_type)
    order = read_order(action.action_type, action.parameters or _NOTHING, result)
    thrown = action.error is not None and not rules.failure_may_hold
    success = False if result.success is False or thrown else action.success
    reason = action.error or result.error
    error = _clean(reason) if reason else None
    failed = (
        success is False
        and (error is not None or not rules.failure_may_hold)
        and word.kind not in ("hold", "unfinished")
    )
    return make_step(
        number,
        at,
        seen if seen is not None and 0 < seen <= _LATEST_MS else at,
        environment.agent_balance,
        environment.agent_pnl,
        _clean(action.action_type),
        *order.detail,
        success,
        error,
        word.kind == "refused" or failed or _is_fallback(step),
        order.closes,
        until if rules.trades_follow_steps and word.kind == "trade" else None,
        _clean(order.word) if order.word else None,
    )


class TradeOrder(msgspec.Struct, frozen=True, gc=False):
    """What a trading action was about; `word` is what it says that is not known."""

    market_type: MarketType | None = None
    market_id: str | None = None
    ticker: str | None = None
    side: Side | None = None
    amount: float | None = None
    closes: bool = False
    word: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it says what to trade, and on which side."""
        instrument = self.market_id if self.market_type == "prediction" else self.ticker
        return self.market_type is not None and instrument is not None and (self.side is not None or self.closes)

    @property
    def detail(self) -> tuple[MarketType | None, str | None, str | None, Side | None, float | None]:
        return self.market_type, self.market_id, self.ticker, self.side, self.amount


def read_order(action_type: str, given: Parameters, result: Result) -> TradeOrder:
    """What an action was about, from its parameters and, where these are silent, from its result and its name."""
    action = read_action(action_type)
    if action.kind is None:
        return TradeOrder(word=f"actionType {action_type}")
    if action.kind != "trade":
        return TradeOrder()
    market_id = given.market_id or result.market_id
    ticker = given.ticker or result.ticker
    words = [text for text in (given.side, given.outcome, given.direction, given.position, result.side) if text]
    meanings = [meaning for text in words if (meaning := read_side(text)) is not None]
    side = next((meaning.side for meaning in meanings if meaning.side), action.side)
    market_type = read_market_type(given.market_type) if given.market_type else _implied(market_id, ticker, side)
    if market_type == "perp" and ticker is None:
        ticker, market_id = market_id, None
    amounts = (given.amount, given.size, given.shares, given.quantity)
    return TradeOrder(
        market_type,
        _clean(market_id) if market_id else None,
        _clean(ticker) if ticker else None,
        side,
        next((number for number in amounts if number is not None), None),
        action.closes or any(meaning.closes for meaning in meanings),
        _unknown_word(given, market_type),
    )


def _unknown_word(given: Parameters, market_type: MarketType | None) -> str | None:
    if given.market_type and market_type is None:
        return f"marketType {given.market_type}"
    return f"side {given.side}" if given.side and read_side(given.side) is None else None


def _implied(market_id: str | None, ticker: str | None, side: Side | None) -> MarketType | None:
    """The kind of market where no word says it."""
    if market_id is not None or ticker is not None:
        return "prediction" if ticker is None else "perp"
    return MARKET_OF_SIDE[side] if side else None


def _head(number: int, index: int, call: Call, exchange: Exchange, refused: bool) -> CallHead:
    at, model = call.timestamp, call.model
    return CallHead(
        number,
        index,
        _clean(call.call_id) if call.call_id else None,
        _clean(model) if model else "",
        call.temperature,
        at if at is not None and 0 < at <= _LATEST_MS else None,
        len(exchange.response),
        refused,
    )


def _clean(text: str) -> str:
    """PostgreSQL's text holds no NUL: in a name or an id it becomes the replacement character."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
