"""What the game asks for: rows of its `training_batches`, claimed by one, and brought to completed or failed.

Used only where TRAIN_REQUESTS is on; without it nothing of the table is read or written. Nothing is added to the game's
schema: whose claim a row in `training` is, is known from the Dagster runs that carry its id. Running it is for others.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.environments.babylon.refusals import explain_refusal
from babylon_assets.environments.base import TrainingWish

_REMEDY = "grant SELECT and UPDATE on training_batches to the role, or set TRAIN_REQUESTS=false"

#: The game's columns are `timestamp(3)` that holds UTC.
_NOW: LiteralString = "(clock_timestamp() AT TIME ZONE 'UTC')::timestamp(3)"
_COLUMNS: LiteralString = """"id", "scenarioId" AS window, "startedAt" AT TIME ZONE 'UTC' AS started_at"""
_CLAIM: LiteralString = f"""
UPDATE public.training_batches SET "status" = 'training', "startedAt" = {_NOW}, "error" = NULL
WHERE "id" = (SELECT "id" FROM public.training_batches WHERE "status" = 'pending' ORDER BY "createdAt", "id" LIMIT 1
              FOR UPDATE SKIP LOCKED) AND "status" = 'pending'
RETURNING {_COLUMNS}"""
_CLAIMED: LiteralString = f"""
SELECT {_COLUMNS} FROM public.training_batches WHERE "status" = 'training' ORDER BY "createdAt", "id" LIMIT %s"""
_AGAIN: LiteralString = f"""
UPDATE public.training_batches SET "startedAt" = {_NOW}
WHERE "id" = %s AND "status" = 'training' AND "startedAt" IS NOT DISTINCT FROM %s::timestamp RETURNING "id" """
_COMPLETE: LiteralString = f"""
UPDATE public.training_batches SET "status" = 'completed', "completedAt" = {_NOW}, "error" = NULL,
    "trainingLoss" = %s, "modelVersion" = %s
WHERE "id" = %s AND "status" = 'training'"""
_FAIL: LiteralString = f"""
UPDATE public.training_batches SET "status" = 'failed', "completedAt" = {_NOW}, "error" = %s
WHERE "id" = %s AND "status" = 'training'"""


def claim(conn: Connection[Any]) -> TrainingWish | None:
    """Claim the oldest pending request; of two claimers one gets it, the other the next one. None without any.

    Raises:
        SourceError: the table is missing, or the role may not write it; so of all functions here.
    """
    with explain_refusal(_REMEDY), conn.transaction(), conn.cursor(row_factory=class_row(TrainingWish)) as cursor:
        return cursor.execute(_CLAIM).fetchone()


def claimed(conn: Connection[Any], most: int) -> list[TrainingWish]:
    """The requests in training, oldest first."""
    with explain_refusal(_REMEDY), conn.cursor(row_factory=class_row(TrainingWish)) as cursor:
        return cursor.execute(_CLAIMED, [most]).fetchall()


def take_up(conn: Connection[Any], request: TrainingWish) -> bool:
    """Claim a request in training that nobody works on any more; False when somebody else has just done so."""
    started = None if request.started_at is None else request.started_at.astimezone(UTC).replace(tzinfo=None)
    with explain_refusal(_REMEDY), conn.transaction():
        return conn.execute(_AGAIN, [request.id, started]).fetchone() is not None


def complete(conn: Connection[Any], request_id: str, loss: float | None, version: str) -> bool:
    """Note that a request was trained; False when it is not in training any more."""
    with explain_refusal(_REMEDY), conn.transaction():
        return conn.execute(_COMPLETE, [loss, version, request_id]).rowcount == 1


def fail(conn: Connection[Any], request_id: str, reason: str) -> bool:
    """Note that a request cannot be trained, and why; False when it is not in training any more."""
    with explain_refusal(_REMEDY), conn.transaction():
        return conn.execute(_FAIL, [reason, request_id]).rowcount == 1
