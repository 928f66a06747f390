"""The table `feedback`: what somebody thought of an answer, of a call by its id or of an agent's step by its time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection

from babylon_assets.ledger.specification import FEEDBACK

#: Judgments of one call, or of one agent at one time.
MOST_ALIKE = 32

_ALIKE = "WHERE call_id IS NOT DISTINCT FROM %(call_id)s AND agent_id IS NOT DISTINCT FROM %(agent_id)s "
_ALIKE += "AND at IS NOT DISTINCT FROM %(at)s LIMIT %(most)s"
#: Those of a window's calls, and those of an agent at a time that lies within one of its trajectories alone.
_OF_WINDOW: LiteralString = """
SELECT f.call_id, r.trajectory_id, f.at, f.number, f.text
FROM babylon_training.feedback f JOIN babylon_training.raw_trajectories r
    ON r.agent_id = f.agent_id AND f.at BETWEEN r.start_time AND r.end_time
WHERE f.call_id IS NULL AND r.window_id = %(window)s AND NOT EXISTS (
    SELECT FROM babylon_training.raw_trajectories o
    WHERE o.agent_id = f.agent_id AND f.at BETWEEN o.start_time AND o.end_time AND o.trajectory_id <> r.trajectory_id)
UNION ALL
SELECT f.call_id, NULL, f.at, f.number, f.text FROM babylon_training.feedback f WHERE f.call_id = ANY(%(calls)s)"""

#: Those that may be of a window's steps, each branch by an index of its own.
_RECEIVED: LiteralString = """
WITH rows AS (SELECT * FROM babylon_training.raw_trajectories WHERE window_id = %(window)s AND samples > 0),
calls AS (
    SELECT c.call_id FROM rows r JOIN babylon_training.inference_calls c ON c.trajectory_id = r.trajectory_id
    UNION SELECT c.call_id FROM rows r JOIN babylon_training.inference_calls c
          ON c.agent_id = r.agent_id AND c.created_at BETWEEN r.start_time AND r.end_time
    UNION SELECT call_id FROM babylon_training.inference_calls
          WHERE agent_id IS NULL AND trajectory_id IS NULL
          AND created_at BETWEEN (SELECT min(start_time) FROM rows) AND (SELECT max(end_time) FROM rows)),
judged AS (
    SELECT f.feedback_id, f.received_at FROM calls c JOIN babylon_training.feedback f ON f.call_id = c.call_id
    UNION SELECT f.feedback_id, f.received_at FROM rows r JOIN babylon_training.feedback f
          ON f.agent_id = r.agent_id AND f.at BETWEEN r.start_time AND r.end_time)
SELECT count(*), max(received_at) FROM judged WHERE EXISTS (SELECT FROM babylon_training.feedback)"""


@FEEDBACK.row
@dataclass(frozen=True, slots=True)
class Feedback:
    """One judgment: of a call, or of what an agent decided at a time; a number or a text."""

    feedback_id: str
    call_id: str | None
    agent_id: str | None
    at: datetime | None
    number: float | None
    text: str | None
    key_name: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StepFeedback:
    """A judgment of something in a window: of a call, or of a trajectory at a time."""

    call_id: str | None
    trajectory_id: str | None
    at: datetime | None
    number: float | None
    text: str | None


def add_feedback(conn: Connection[Any], feedback: Feedback) -> Feedback | None:
    """Keep a judgment, in a transaction of its own; gives what is kept under its id, which may be an earlier one.

    None where as many as are kept judge the same already.
    """
    row = asdict(feedback)
    with conn.transaction():
        alike = FEEDBACK.select(_ALIKE, "feedback_id")
        ids = [name for (name,) in conn.execute(alike, {**row, "most": MOST_ALIKE})]
        if len(ids) < MOST_ALIKE or feedback.feedback_id in ids:
            conn.execute(FEEDBACK.insert(row, "ON CONFLICT (feedback_id) DO NOTHING"), row)
        kept = conn.execute(FEEDBACK.select("WHERE feedback_id = %s"), [feedback.feedback_id]).fetchone()
    return None if kept is None else Feedback(*kept)


def feedback_of(conn: Connection[Any], window: str, call_ids: list[str]) -> list[StepFeedback]:
    """The judgments of a window's calls, which are named, and of its agents at a time."""
    with conn.cursor() as cursor:
        return [StepFeedback(*row) for row in cursor.execute(_OF_WINDOW, {"window": window, "calls": call_ids})]


def state_of(conn: Connection[Any], window: str) -> str | None:
    """What changes whenever somebody judges a step of a window, or may do so; None where nobody has."""
    row = conn.execute(_RECEIVED, {"window": window}).fetchone()
    count, last = row or (0, None)
    return f"{count} {last.isoformat()}" if last is not None else None
