"""A support desk as an environment: agents answer customers' tickets, and customers rate the replies later.

A reply is a trajectory of one step: the prompt is what the agent saw, the word in brackets that its answer begins with
is its action, and the customer's stars say what that was worth. Replies to the same ticket are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from babylon_assets import (
    BaseEnvironment,
    Connection,
    Message,
    Quarantined,
    RawSample,
    Scorer,
    SourceError,
    SourceWindow,
    StepFacts,
    TrajectoryRecord,
    content_id,
)

# -- the record, in tables of its own ----------------------------------------------------------------------------------

SCHEMA = """
CREATE SCHEMA desk;
CREATE TABLE desk.tickets (id text PRIMARY KEY, opened_at timestamptz NOT NULL, body text NOT NULL);
CREATE TABLE desk.replies (
    id text PRIMARY KEY, ticket_id text NOT NULL REFERENCES desk.tickets, agent text NOT NULL,
    replied_at timestamptz NOT NULL, model text NOT NULL, call_id text, prompt jsonb NOT NULL, answer text NOT NULL);
CREATE INDEX ON desk.replies (replied_at);
CREATE TABLE desk.ratings (
    reply_id text PRIMARY KEY REFERENCES desk.replies, stars int NOT NULL CHECK (stars BETWEEN 1 AND 5),
    rated_at timestamptz NOT NULL);
"""
TABLES = ("desk.tickets", "desk.replies", "desk.ratings")
#: What an agent may do; its answer begins with one of these in brackets.
ACTIONS = ("refund", "replace", "explain", "escalate")
#: A customer who has not rated a reply by then never will.
PATIENCE = timedelta(days=7)

_MISSING = "SELECT t FROM unnest(%s::text[]) AS t WHERE has_table_privilege(to_regclass(t), 'SELECT') IS NOT TRUE"
_WINDOWS = """
SELECT to_char(date_bin(%s, replied_at, '2000-01-01 00:00+00'), 'YYYY-MM-DD"T"HH24:MI'), count(DISTINCT agent), count(*)
FROM desk.replies WHERE replied_at >= %s GROUP BY 1 ORDER BY 1"""
_REPLIES = """
SELECT r.id, r.agent, t.opened_at, r.replied_at, r.model, r.call_id, r.prompt, r.answer
FROM desk.replies r JOIN desk.tickets t ON t.id = r.ticket_id WHERE r.replied_at >= %s AND r.replied_at < %s"""
_FINGERPRINT = f"""
SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex')
FROM (SELECT concat_ws('|', md5(reply::text), rating.stars, extract(epoch FROM rating.rated_at)) AS line
      FROM ({_REPLIES}) AS reply LEFT JOIN desk.ratings AS rating ON rating.reply_id = reply.id) AS lines"""
_STARS = """
SELECT reply_id, stars FROM desk.ratings
WHERE reply_id = ANY(%(ids)s) AND (%(as_of)s::timestamptz IS NULL OR rated_at <= %(as_of)s)"""


class Reply(NamedTuple):
    """A row of `desk.replies`, and when its ticket was opened."""

    id: str
    agent: str
    opened_at: datetime
    replied_at: datetime
    model: str
    call_id: str | None
    prompt: Any
    answer: str


# -- a row as a trajectory ---------------------------------------------------------------------------------------------


def parse_action(answer: str) -> str | None:
    """The action that an answer begins with, such as `[refund] Dear customer, ...`; None for anything else."""
    found = re.match(r"\[(\w+)\] ", answer)
    return found[1] if found and found[1] in ACTIONS else None


def decode_reply(window: str, reply: Reply) -> TrajectoryRecord | Quarantined:
    """A reply as a trajectory. A prompt that is no conversation is quarantined; an answer without an action is not."""
    row_hash = content_id([window, *reply])
    try:
        messages = msgspec.convert(reply.prompt, list[Message])
    except msgspec.ValidationError as error:
        return Quarantined(window, reply.id, str(error), "prompt", row_hash)
    action, at = parse_action(reply.answer), _milliseconds(reply.replied_at)
    step = StepFacts(
        step=0,
        timestamp_ms=at,
        moment_ms=_milliseconds(reply.opened_at),
        action_type=action or "none",
        success=action is not None,
        error=None,
        invalid=action is None,
        detail={"waited_minutes": (reply.replied_at - reply.opened_at) / timedelta(minutes=1)},
    )
    return TrajectoryRecord(
        window=window,
        trajectory_id=reply.id,
        agent_id=reply.agent,
        scenario_id=None,
        shape="full",
        start_time=reply.opened_at,
        end_time=reply.replied_at,
        final_status="replied",
        final_balance=None,
        final_pnl=None,
        content_hash=row_hash,
        samples=[RawSample(0, 0, reply.call_id, reply.model, 1.0, at, messages, reply.answer)],
        facts=[step],
    )


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


# -- what is good: a scorer of its own, and the environment ------------------------------------------------------------


@dataclass(frozen=True)
class PromptnessScorer:
    """1 for a reply at once, 0 for one after an hour or more."""

    name: str = "promptness"
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        return (1 - steps["waited_minutes"] / 60).clip(0, 1)


class SupportDesk(BaseEnvironment):
    """The desk's tickets, replies and ratings."""

    name = "support_desk"
    tables: Mapping[str, str] = {
        "trajectories": "The table `desk.replies`: what an agent saw and answered, a reply to a ticket a row.",
        "outcomes": "The table `desk.ratings`: the stars that customers gave, hours or days after the reply as well.",
    }
    detail: Mapping[str, str] = {"waited_minutes": "float64"}
    result_keys: tuple[str, ...] = ("stars", "rated_at")

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        return {"promptness": PromptnessScorer()}

    def has_record(self, conn: Connection) -> bool:
        return conn.execute("SELECT to_regclass('desk.replies') IS NOT NULL").fetchone() == (True,)

    def check(self, conn: Connection) -> None:
        if missing := [row[0] for row in conn.execute(_MISSING, [list(TABLES)])]:
            raise SourceError(f"{', '.join(missing)} cannot be read; create what is missing and grant SELECT on it")

    def list_windows(self, conn: Connection, since: str | None = None) -> list[SourceWindow]:
        windows = self.settings.windows
        first = windows.parse(since).start if since else "-infinity"
        return [SourceWindow(*row) for row in conn.execute(_WINDOWS, [windows.length, first])]

    def fingerprint(self, conn: Connection, window: str, references: Sequence[str]) -> str:
        row = conn.execute(_FINGERPRINT, self.settings.windows.bounds(window)).fetchone()
        assert row is not None
        return str(row[0])

    def read_window(self, conn: Connection, window: str) -> Iterator[TrajectoryRecord | Quarantined]:
        with conn.cursor() as cursor:
            for row in cursor.stream(_REPLIES, self.settings.windows.bounds(window)):
                yield decode_reply(window, Reply(*row))

    def value_steps(
        self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None
    ) -> pd.DataFrame:
        """Five stars are worth 1, one star -1."""
        known = conn.execute(_STARS, {"ids": steps["trajectory_id"].tolist(), "as_of": as_of})
        stars = steps["trajectory_id"].map(dict(known.fetchall())).astype("float64").mask(steps["invalid"])
        old = steps["timestamp_ms"] < (_milliseconds(as_of - PATIENCE) if as_of else 0)
        state = np.select([steps["invalid"], stars.notna(), old], ["invalid", "final", "unknown"], "pending")
        return pd.DataFrame({"worth": (stars - 3) / 2, "state": state}, index=steps.index)
