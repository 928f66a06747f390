"""The table `inference_calls`: every answer that one of our policies gave, with its exact tokens and log-probabilities.

Who writes them, the simulated game or a server, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec
from psycopg import Connection, sql

from babylon_assets.core.errors import CorruptLedger
from babylon_assets.core.trajectories import Message
from babylon_assets.store.tables import INFERENCE_CALLS, pack, unpack


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


# Each branch is answered by an index of its own.
_CANDIDATES = """WHERE call_id IN (
    SELECT unnest(%s::text[])
    UNION SELECT c.call_id FROM babylon_training.raw_trajectories r
          JOIN babylon_training.inference_calls c ON c.trajectory_id = r.trajectory_id WHERE r.window_id = %s
    UNION SELECT c.call_id FROM babylon_training.raw_trajectories r JOIN babylon_training.inference_calls c
          ON c.agent_id = r.agent_id AND c.created_at BETWEEN r.start_time AND r.end_time AND c.trajectory_id IS NULL
          WHERE r.window_id = %s)"""
_COLUMNS = tuple(item.name for item in fields(InferenceCall))
_encode_messages = msgspec.json.Encoder().encode
_decode_messages = msgspec.json.Decoder(list[Message]).decode


def insert_calls(conn: Connection[Any], calls: Iterable[InferenceCall]) -> None:
    """Add calls by COPY, in the caller's transaction. A call id that is already there fails the whole transaction."""
    INFERENCE_CALLS.copy(conn, _COLUMNS, map(_row, calls))


def _row(call: InferenceCall) -> tuple[Any, ...]:
    return tuple(_stored(name, getattr(call, name)) for name in _COLUMNS)


def _stored(name: str, value: Any) -> Any:
    if name == "messages":
        return pack(_encode_messages(list(value)))
    if name == "response":
        return value.encode()
    return list(value) if value is not None and INFERENCE_CALLS.columns[name].endswith("[]") else value


def calls_by_id(conn: Connection[Any], ids: Iterable[str]) -> dict[str, InferenceCall]:
    """The recorded calls among `ids`, by id.

    Raises:
        CorruptLedger: when a call's messages or response cannot be decoded.
    """
    return _found(conn, INFERENCE_CALLS.select("WHERE call_id = ANY(%s)", *_COLUMNS), [list(ids)])


def calls_of(conn: Connection[Any], window: str, ids: Iterable[str]) -> dict[str, InferenceCall]:
    """The recorded calls that may belong to the trajectories kept of a window, by id.

    Those named by `ids`, those of the trajectories, and those without a trajectory that their agents made within an
    episode.

    Raises:
        CorruptLedger: when a call's messages or response cannot be decoded.
    """
    return _found(conn, INFERENCE_CALLS.select(_CANDIDATES, *_COLUMNS), [list(ids), window, window])


def _found(conn: Connection[Any], query: sql.Composed, parameters: list[Any]) -> dict[str, InferenceCall]:
    with conn.cursor(binary=True) as cursor:
        found = [_call(row) for row in cursor.execute(query, parameters)]
    return {call.call_id: call for call in found}


def _call(row: Sequence[Any]) -> InferenceCall:
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        values["messages"] = _decode_messages(unpack(values["messages"]))
        values["response"] = values["response"].decode()
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptLedger(
            f"the texts of call {values['call_id']} cannot be decoded ({error}); restore it from a backup"
        ) from None
    return InferenceCall(**values)
