"""POST /v1/feedback: what somebody thought of an answer, kept until a scorer makes a reward of it.

It names a call by its id, or an agent and the time of its decision. The reply says that it is in the database.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import psycopg
from msgspec import Meta
from psycopg import Connection

from babylon_assets.domain.errors import BabylonError
from babylon_assets.domain.policies import Caller
from babylon_assets.ledger.feedback import MOST_ALIKE, Feedback, add_feedback
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id
from babylon_assets.serving.http.accepted_request import Parts
from babylon_assets.serving.http.keys import ANYBODY
from babylon_assets.serving.http.protocol import LONGEST_NAME, ApiError, read_time
from babylon_assets.serving.http.request_reading import refusals, repaired
from babylon_assets.serving.recorder import Recorder

LONGEST_TEXT = 10_000
LARGEST_NUMBER = 1e6
#: How long a call that was answered just now is waited for.
CALL_SECONDS = 2.0


class FeedbackRequest(msgspec.Struct):
    """The body of /v1/feedback."""

    value: bool | Annotated[float, Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)] | Annotated[str, Meta(min_length=1)]
    call_id: Annotated[str, Meta(max_length=LONGEST_NAME)] | None = None
    agent: Annotated[str, Meta(max_length=LONGEST_NAME)] | None = None
    at: str | None = None
    idempotency_key: Annotated[str, Meta(max_length=LONGEST_NAME)] | None = None


_decode = msgspec.json.Decoder(FeedbackRequest).decode


def read_feedback(body: bytes) -> FeedbackRequest:
    """A request out of its body. Raises ApiError: 400 with the field that is at fault."""
    with refusals():
        return _decode(repaired(body)[0])


async def take_feedback(parts: Parts, key: str, given: FeedbackRequest, headers: Mapping[str, str]) -> dict[str, Any]:
    """Keep what a request says.

    Raises:
        ApiError: 400 for what it does not say, 403 for another's agent, 404 for no such call, 409 for another judgment
            under the same idempotency key, 429 for too many, 503 while PostgreSQL does not answer.
    """
    feedback = _feedback(given, key, headers.get("idempotency-key"))
    with parts.access.place(key, 1):
        try:
            kept = await parts.work.ask_ledger(key, lambda: _keep(parts, key, feedback))
        except (psycopg.OperationalError, BabylonError) as error:
            raise ApiError(503, "the ledger cannot be written now", code="not_ready", retry_after=1) from error
    return {"id": kept.feedback_id, "object": "feedback", "received_at": kept.received_at.isoformat()}


def _feedback(given: FeedbackRequest, key: str, header: str | None) -> Feedback:
    at = read_time(given.at)
    if given.call_id is None and (given.agent is None or at is None):
        reason = "feedback names a call by call_id, or an agent by agent and the time of its decision by at"
        raise ApiError(400, reason, param="call_id", code="invalid_value")
    is_text = isinstance(given.value, str)
    texts = [text for text in (given.value if is_text else None, given.agent, given.call_id) if text is not None]
    if any("\0" in str(text) for text in texts) or (is_text and len(str(given.value)) > LONGEST_TEXT):
        raise ApiError(
            400, f"a text may have {LONGEST_TEXT} characters and no NUL", param="value", code="invalid_value"
        )
    once = given.idempotency_key or header
    digest = None if once is None else hashlib.sha256(f"{key}\0{once}".encode()).hexdigest()
    return Feedback(
        feedback_id=f"fb_{secrets.token_hex(12) if digest is None else digest}",
        call_id=given.call_id,
        agent_id=given.agent,
        at=at if given.call_id is None else None,
        number=None if isinstance(given.value, str) else float(given.value),
        text=given.value if isinstance(given.value, str) else None,
        key_name=None if key == ANYBODY else key,
        received_at=datetime.now(UTC),
    )


def _keep(parts: Parts, key: str, feedback: Feedback) -> Feedback:
    with parts.directory.ledger.connect_autocommit() as conn:
        call = None if feedback.call_id is None else _call(conn, parts.recorder, feedback.call_id)
        _require_own(parts, key, feedback, call)
        kept = add_feedback(conn, feedback)
    if kept is None:
        reason = f"{MOST_ALIKE} judgments of the same are kept; send no more"
        raise ApiError(429, reason, code="rate_limit_exceeded")
    differs = (kept.call_id, kept.agent_id, kept.at, kept.number, kept.text) != (
        *(feedback.call_id, feedback.agent_id, feedback.at),
        *(feedback.number, feedback.text),
    )
    if differs:
        reason = "another judgment was sent with this idempotency key"
        raise ApiError(409, reason, param="idempotency_key", code="idempotency_key_reused")
    return kept


def _call(conn: Connection[Any], recorder: Recorder | None, call_id: str) -> InferenceCall:
    """The call that is judged; one that was answered just now is on its way to the database."""
    calls = calls_by_id(conn, [call_id])
    if call_id not in calls and recorder is not None and recorder.flush(CALL_SECONDS):
        calls = calls_by_id(conn, [call_id])
    if call_id not in calls:
        raise ApiError(404, f"no call {call_id[:80]!r} is recorded", param="call_id", code="call_not_found")
    return calls[call_id]


def _require_own(parts: Parts, key: str, feedback: Feedback, call: InferenceCall | None) -> None:
    """Refuse who judges answers of agents that the key does not speak for."""
    named = {feedback.agent_id, None if call is None else call.agent_id} - {None}
    for agent in named:
        parts.access.require_own_agent(key, Caller(agent))
    if call is not None and call.agent_id is None and call.key_name != feedback.key_name:
        raise ApiError(403, "that call was made with another key", param="call_id", code="agent_not_allowed")
