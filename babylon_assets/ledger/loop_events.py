"""What the loop did of late: trainings that began and that ended, thin windows, verdicts, promotions and rollbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.ledger.training_jobs import SILENT_SECONDS

Kind = Literal["training", "trained", "skipped", "failed", "thin", "refused", "promotion", "rollback"]

#: A row that is written again, as an open window's is, is another event only if its kind changed: `key` has no time.
_EVENTS: LiteralString = """
SELECT 'training' AS kind, 'job ' || id AS key, window_id AS window, chain AS policy, NULL AS why,
    NULL::jsonb AS verdict, created_at AS at
FROM babylon_training.training_jobs WHERE created_at > %(since)s
UNION ALL
SELECT job.state, 'job ' || job.id, job.window_id, made.chain || '@' || made.step, job.reason, NULL, job.heartbeat
FROM babylon_training.training_jobs AS job LEFT JOIN babylon_training.model_checkpoints AS made
    ON made.id = job.checkpoint_id
WHERE job.heartbeat > %(since)s AND job.state IN ('trained', 'skipped', 'failed')
UNION ALL
SELECT 'thin', 'window ' || window_id, window_id, NULL, reason, NULL, changed_at
FROM babylon_training.windows WHERE changed_at > %(since)s AND status = 'thin'
UNION ALL
SELECT 'refused', 'verdict ' || made.id, made.window_id, made.chain || '@' || made.step, judged.why, judged.verdict,
    judged.judged_at
FROM babylon_training.gate_verdicts AS judged JOIN babylon_training.model_checkpoints AS made
    ON made.id = judged.checkpoint_id
WHERE judged.judged_at > %(since)s AND NOT judged.passed
UNION ALL
SELECT promotion.kind, 'promotion ' || promotion.id, made.window_id, made.chain || '@' || made.step, promotion.why,
    promotion.verdict, promotion.promoted_at
FROM babylon_training.promotions AS promotion JOIN babylon_training.model_checkpoints AS made
    ON made.id = promotion.to_id
WHERE promotion.promoted_at > %(since)s
ORDER BY at, kind"""

_RUNNING: LiteralString = """
SELECT window_id, clock_timestamp() - created_at FROM babylon_training.training_jobs
WHERE state IN ('prepared', 'submitted', 'training') AND heartbeat > clock_timestamp() - make_interval(secs => %s)
ORDER BY created_at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopEvent:
    """One thing that happened.

    Attributes:
        key: of the row that says it; with the kind, no two events have the same.
        window: the window of the training, or of the checkpoint; None for a base model.
        policy: the checkpoint by its policy's name; of a training that began, its chain.
        why: the reason, in words; may hold texts that agents made.
        verdict: the gate's, for a refusal or a promotion.
    """

    kind: Kind
    key: str
    window: str | None
    policy: str | None
    why: str | None
    verdict: Mapping[str, Any] | None
    at: datetime


def events_since(conn: Connection[Any], since: datetime) -> list[LoopEvent]:
    """Events of all chains after a moment of the server's clock, oldest first."""
    with conn.cursor(row_factory=class_row(LoopEvent)) as cursor:
        return cursor.execute(_EVENTS, {"since": since}).fetchall()


def server_time(conn: Connection[Any]) -> datetime:
    """The server's clock now."""
    ((moment,),) = conn.execute("SELECT clock_timestamp()")
    return moment  # type: ignore[no-any-return]


def trainings_that_run(conn: Connection[Any]) -> dict[str, timedelta]:
    """The windows in training that gave a sign of life within `SILENT_SECONDS`, and for how long they train."""
    return dict(conn.execute(_RUNNING, [SILENT_SECONDS]).fetchall())
