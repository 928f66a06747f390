"""The game's table `llm_call_logs`: the calls of a trajectory whose steps hold no texts themselves.

A call names its step as `<trajectoryId>-step-<n>`, or by the id that the game's second recorder gave the step.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from babylon_assets.domain.json_nesting import decode_cut
from babylon_assets.environments.babylon.call_texts import has_answer
from babylon_assets.environments.babylon.schema import Schema
from babylon_assets.environments.babylon.steps import Call, Step, as_number

NO_STEP, UNREADABLE = "logged calls of no step", "logged calls that cannot be read"
_MILLISECONDS = """(extract(epoch FROM l."timestamp") * 1000)::int8"""
#: The calls of a row of `trajectories` (t), in the order in which they were made; null where its steps have texts.
_CALLS = f"""CASE WHEN position('"response"' IN t."stepsJson") = 0 THEN (
        SELECT json_agg(json_build_object('stepId', l."stepId", 'callId', l."callId", 'model', l.model,
            'purpose', l.purpose, 'systemPrompt', l."systemPrompt", 'userPrompt', l."userPrompt",
            'messagesJson', l."messagesJson", 'response', l.response, 'temperature', l.temperature,
            'timestamp', {_MILLISECONDS}) ORDER BY l."timestamp", l."callId")::text
        FROM public.llm_call_logs l WHERE l."trajectoryId" = t."trajectoryId") END"""


class _LoggedCall(msgspec.Struct, gc=False, rename="camel"):
    """A row of the table; texts are never null in it."""

    step_id: str
    call_id: str
    model: str
    purpose: str
    system_prompt: str
    user_prompt: str
    response: str
    messages_json: str | None = None
    temperature: Any = None
    timestamp: int | None = None


def call_columns(schema: Schema) -> str:
    """JSON of a trajectory's logged calls as a part of its statement; null where the table is not there."""
    return _CALLS if schema.has("llm_call_logs") else "NULL"


def add_logged_calls(
    steps: Sequence[Step], numbers: Sequence[int], trajectory: str, logged: bytes, dropped: Counter[str]
) -> None:
    """Give those of a trajectory's steps that have no answered call the ones that were logged of them.

    Args:
        logged: as of `call_columns`.
        dropped: counts the calls whose step is not among them.
    """
    try:
        rows = msgspec.json.decode(logged, type=list[_LoggedCall])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        dropped[UNREADABLE] += 1
        return
    by_step: dict[str, list[Call]] = defaultdict(list)
    for row in rows:
        by_step[row.step_id].append(_call(row))
    for step, number in zip(steps, numbers, strict=True):
        own = str(step.step_id) if isinstance(step.step_id, str | int) else ""
        names = (own, f"{trajectory}-step-{number}")
        calls = next((by_step.pop(name) for name in names if name in by_step), [])
        if calls and not any(map(has_answer, step.llm_calls or ())):
            step.llm_calls = calls
    if left := sum(map(len, by_step.values())):
        dropped[NO_STEP] += left


def _call(row: _LoggedCall) -> Call:
    return Call(
        model=row.model,
        purpose=row.purpose,
        call_id=row.call_id,
        system_prompt=row.system_prompt,
        user_prompt=row.user_prompt,
        messages=_messages(row.messages_json),
        response=row.response,
        temperature=as_number(row.temperature),
        timestamp=row.timestamp,
    )


_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode


def _messages(text: str | None) -> list[dict[str, Any]] | None:
    """The conversation where it was logged as one; None leaves the two prompts."""
    try:
        return decode_cut(_decode_messages, text.encode()) if text else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
