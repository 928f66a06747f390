"""The table `inference_calls`: every answer of one of our policies, with its exact tokens and log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, LiteralString

import msgspec
from psycopg import Connection, sql

from babylon_assets.domain.answer_texts import FORMS
from babylon_assets.domain.claims import CLOCK_SKEW
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.trajectories import Message, ToolCall, decode_chat
from babylon_assets.ledger.arrays import fixed_array
from babylon_assets.ledger.compression import pack, unpack
from babylon_assets.ledger.forgotten_agents import NOT_FORGOTTEN
from babylon_assets.ledger.specification import INFERENCE_CALLS
from babylon_assets.ledger.table import json_value
from babylon_assets.ledger.trajectories import stream_chats


@INFERENCE_CALLS.row
@dataclass(frozen=True, slots=True)
class InferenceCall:
    """One answer.

    Attributes:
        call_id: given by whoever asked or served; the game may carry it in its own record.
        created_at: aware; when the answer was asked for, on the game's clock.
        policy, policy_step: `<model>@<step>` and the step, when it was one of our checkpoints.
        messages: the conversation up to where the answer begins.
        response: the answer's text exactly as sampled, which may hold NUL; its column is UTF-8 in bytea for that.
        prompt_token_ids, token_ids: what the policy read and what it sampled, end of turn included.
        logprobs: natural log-probability at temperature 1 of each of `token_ids`.
        latency_ms: from the request to the whole answer; None where nothing was measured.
        sampling: `top_p`, `max_tokens`, `stop` and what else was asked for, where it is known.
        key_name: of the gateway's key that asked; None where none was needed.
        received_at: aware; when the gateway took the question, on its own clock, whatever the caller said.
        tools: canonical JSON of the tools that were offered, a list in OpenAI's form.
        tool_calls: what the answer asked of them, as it was given to the client; `response` spells it in its own way.
    """

    call_id: str
    created_at: datetime
    model: str
    policy: str | None
    policy_step: int | None
    agent_id: str | None
    trajectory_id: str | None
    step: int | None
    messages: Sequence[Message]
    response: str
    prompt_token_ids: Sequence[int] | None
    token_ids: Sequence[int] | None
    logprobs: Sequence[float] | None
    temperature: float | None
    seed: int | None
    latency_ms: float | None
    finish_reason: str | None
    sampling: Mapping[str, Any] | None = None
    key_name: str | None = None
    received_at: datetime | None = None
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


# Each branch is answered by an index of its own.
_CANDIDATES = """WHERE call_id IN (
    SELECT unnest(%s::text[])
    UNION SELECT c.call_id FROM babylon_training.raw_trajectories r
          JOIN babylon_training.inference_calls c ON c.trajectory_id = r.trajectory_id WHERE r.window_id = %s
    UNION SELECT c.call_id FROM babylon_training.raw_trajectories r JOIN babylon_training.inference_calls c
          ON c.agent_id = r.agent_id AND c.created_at BETWEEN r.start_time AND r.end_time AND c.trajectory_id IS NULL
          WHERE r.window_id = %s)"""
_TIMES: LiteralString = """
SELECT min(start_time), max(end_time) FROM babylon_training.raw_trajectories WHERE window_id = %s AND samples > 0"""
_ANONYMOUS: LiteralString = "WHERE agent_id IS NULL AND trajectory_id IS NULL AND created_at BETWEEN %s AND %s"
_MAKE_INCOMING: LiteralString = """
CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE babylon_training.inference_calls) ON COMMIT DELETE ROWS"""
_TAKE_OVER: LiteralString = f"""
INSERT INTO babylon_training.inference_calls SELECT * FROM pg_temp.incoming AS written WHERE {NOT_FORGOTTEN}
ON CONFLICT (call_id) DO NOTHING"""
# By the gateway's own clock where it is known: a game's may be of another year.
_WITH_OLD_TOKENS: LiteralString = """
FROM babylon_training.inference_calls
WHERE coalesce(received_at, created_at) < %s AND num_nonnulls(prompt_token_ids, token_ids, logprobs) > 0"""
_DROP_TOKENS: LiteralString = f"""
UPDATE babylon_training.inference_calls SET prompt_token_ids = NULL, token_ids = NULL, logprobs = NULL
WHERE call_id IN (SELECT call_id {_WITH_OLD_TOKENS} LIMIT %s)"""
#: Calls whose tokens are removed in one transaction.
DROPPED_TOGETHER = 5000
_COLUMNS = tuple(item.name for item in fields(InferenceCall))
#: Columns of numbers, by the type of one.
_ARRAYS = {
    name: column.type.removesuffix("[]")
    for name, column in INFERENCE_CALLS.columns.items()
    if column.type.endswith("[]")
}
_FITS: dict[str, Callable[[Any], bool]] = {
    "text": lambda text: "\0" not in text,
    "int4": lambda number: -(2**31) <= number < 2**31,
    "int8": lambda number: -(2**63) <= number < 2**63,
    "timestamptz": lambda at: at.tzinfo is not None and at.year < 9999,  # its zone may not lead out of the calendar
    "jsonb": lambda value: b"\\u0000" not in msgspec.json.encode(value),
}
_encode_messages = msgspec.json.Encoder().encode
_decode_messages = msgspec.json.Decoder(list[Message]).decode
_words = FORMS[-1].answer
_decode_tool_calls = msgspec.json.Decoder(tuple[ToolCall, ...]).decode


def insert_calls(conn: Connection[Any], calls: Iterable[InferenceCall]) -> None:
    """Add calls by COPY, in the caller's transaction. A call id that is already there fails the whole transaction."""
    INFERENCE_CALLS.copy(conn, _COLUMNS, map(_row, calls), _ARRAYS)


def add_calls(conn: Connection[Any], calls: Iterable[InferenceCall]) -> int:
    """Add those calls whose ids are not there yet, in the caller's transaction; says how many that were.

    Calls from before their agent was forgotten, which have waited since, are left out. By COPY into a table of this
    session, then from there: what was written by a process that died before it could note so is written once.
    """
    conn.execute(_MAKE_INCOMING)
    replace(INFERENCE_CALLS, name="incoming", schema="pg_temp").copy(conn, _COLUMNS, map(_row, calls), _ARRAYS)
    return conn.execute(_TAKE_OVER).rowcount


def replace_calls(conn: Connection[Any], old: Iterable[str], calls: Iterable[InferenceCall]) -> None:
    """Remove the calls with these ids and add others, in the caller's transaction; one that is there stays as it is."""
    new = {call.call_id: call for call in calls}
    conn.execute(INFERENCE_CALLS.delete("WHERE call_id = ANY(%s)"), [[name for name in old if name not in new]])
    listed = INFERENCE_CALLS.select("WHERE call_id = ANY(%s)", "call_id")
    there = {name for (name,) in conn.execute(listed, [list(new)])}
    insert_calls(conn, [call for name, call in new.items() if name not in there])


def check_storable(values: Mapping[str, Any]) -> None:
    """Make sure that the table takes what is known of a call before it is answered.

    Args:
        values: by column.

    Raises:
        ValueError: it says which column does not take its value.
    """
    for name, value in values.items():
        fits = _FITS.get(INFERENCE_CALLS.columns[name].type)
        if value is not None and fits is not None and not fits(value):
            raise ValueError(f"{name} cannot be stored")


def drop_old_tokens(conn: Connection[Any], before: datetime, *, dry_run: bool = False) -> int:
    """Remove tokens and log-probabilities of calls that were received before; says of how many calls.

    So many calls at a time are a transaction, which is committed.
    """
    if dry_run:
        row = conn.execute("SELECT count(*)" + _WITH_OLD_TOKENS, [before]).fetchone()
        assert row is not None
        return int(row[0])
    removed = 0
    while count := conn.execute(_DROP_TOKENS, [before, DROPPED_TOGETHER]).rowcount:
        conn.commit()
        removed += count
    return removed


def _row(call: InferenceCall) -> tuple[Any, ...]:
    return tuple(_stored(name, getattr(call, name)) for name in _COLUMNS)


def _stored(name: str, value: Any) -> Any:
    if name == "messages":
        return pack(_encode_messages(list(value)))
    if name == "tools":
        return None if value is None else pack(value.encode())
    if name == "tool_calls":
        return pack(_encode_messages(value)) if value else b""
    if name == "response":
        return value.encode()
    if name == "sampling":
        return json_value(value)
    return value if value is None or name not in _ARRAYS else fixed_array(value, _ARRAYS[name])


def calls_by_id(conn: Connection[Any], ids: Iterable[str]) -> dict[str, InferenceCall]:
    """The recorded calls among `ids`, by id.

    Raises:
        CorruptLedger: when a call's messages or response cannot be decoded.
    """
    return _select_calls(conn, INFERENCE_CALLS.select("WHERE call_id = ANY(%s)", *_COLUMNS), [list(ids)])


def missing_calls(conn: Connection[Any], ids: Iterable[str]) -> list[str]:
    """Those of `ids` under which no call is recorded."""
    query: LiteralString = """
        SELECT id FROM unnest(%s::text[]) AS wanted (id)
        WHERE NOT EXISTS (SELECT 1 FROM babylon_training.inference_calls WHERE call_id = id)"""
    return [row[0] for row in conn.execute(query, [list(ids)])]


def calls_of(conn: Connection[Any], window: str, ids: Iterable[str]) -> dict[str, InferenceCall]:
    """The recorded calls that may belong to the trajectories kept of a window, by id.

    Those named by `ids`, those of the trajectories, those without a trajectory that their agents made within an
    episode, and those of that time that say nothing of their caller and gave an answer which a trajectory has.

    Raises:
        CorruptLedger: when a call's messages or response cannot be decoded.
    """
    calls = _select_calls(conn, INFERENCE_CALLS.select(_CANDIDATES, *_COLUMNS), [list(ids), window, window])
    return calls | _anonymous_calls(conn, window)


def _anonymous_calls(conn: Connection[Any], window: str) -> dict[str, InferenceCall]:
    """Calls of the window's time that say nothing of their caller, and whose answers a trajectory of the window has."""
    start, end = conn.execute(_TIMES, [window]).fetchone() or (None, None)
    if start is None or end is None:
        return {}
    times = [start - CLOCK_SKEW, end + CLOCK_SKEW]
    if conn.execute(INFERENCE_CALLS.select(f"{_ANONYMOUS} LIMIT 1", "call_id"), times).fetchone() is None:
        return {}
    answers = {answer for _, chat in stream_chats(conn, window) for answer in map(_words, decode_chat(chat))}
    listed = INFERENCE_CALLS.select(_ANONYMOUS, "call_id", "response", "tool_calls")
    with conn.cursor(binary=True) as cursor:
        alike = [name for name, *texts in cursor.execute(listed, times) if _words(_Answer.stored(*texts)) in answers]
    return _select_calls(conn, INFERENCE_CALLS.select("WHERE call_id = ANY(%s)", *_COLUMNS), [alike])


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer of a call alone."""

    response: str
    tool_calls: tuple[ToolCall, ...]
    messages: Sequence[Message] = ()

    @classmethod
    def stored(cls, response: bytes, tool_calls: bytes) -> _Answer:
        return cls(response.decode(errors="replace"), _tool_calls(tool_calls))


def _tool_calls(stored: bytes) -> tuple[ToolCall, ...]:
    return () if not stored else _decode_tool_calls(unpack(stored))


def _select_calls(conn: Connection[Any], query: sql.Composed, parameters: list[Any]) -> dict[str, InferenceCall]:
    with conn.cursor(binary=True) as cursor:
        calls = [_call(row) for row in cursor.execute(query, parameters)]
    return {call.call_id: call for call in calls}


def _call(row: Sequence[Any]) -> InferenceCall:
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        values["messages"] = _decode_messages(unpack(values["messages"]))
        values["response"] = values["response"].decode()
        values["tools"] = None if values["tools"] is None else unpack(values["tools"]).decode()
        values["tool_calls"] = _tool_calls(values["tool_calls"])
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptLedger(
            f"the texts of call {values['call_id']} cannot be decoded ({error}); restore it from a backup"
        ) from None
    return InferenceCall(**values)
