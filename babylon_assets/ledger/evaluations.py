"""The table `checkpoint_evaluations`: what was measured of a checkpoint, once per evaluation and version.

A version names everything that decides the numbers, so that a row is never measured again and never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.ledger.specification import CHECKPOINT_EVALUATIONS
from babylon_assets.ledger.table import json_value

#: Begins the version of what was measured for a comparison alone.
COMPARED: LiteralString = "compare-"
#: The measurement that the reward of a checkpoint `made` is taken from, as `best`: the newest by what the gate goes by,
#: which is the environment's benchmark, or its recorded prompts where there is none.
REWARD: LiteralString = f"""
LEFT JOIN LATERAL (
    SELECT evaluation, value, low, high, CASE WHEN jsonb_typeof(results->'valid_share') = 'number'
        AND (results->>'valid_share')::numeric BETWEEN 0 AND 1 THEN (results->>'valid_share')::float8 END AS valid_share
    FROM babylon_training.checkpoint_evaluations AS measured
    WHERE measured.checkpoint_id = made.id AND value IS NOT NULL AND evaluation <> 'off_policy'
        AND NOT starts_with(evaluation, 'snapshot:') AND NOT starts_with(version, '{COMPARED}')
    ORDER BY evaluation = 'recorded_prompts', measured.created_at DESC LIMIT 1) AS best ON true"""


@CHECKPOINT_EVALUATIONS.row
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One measurement.

    Attributes:
        window_id: the window whose data it was measured on; None for one that is the same for all.
        baseline_id: the checkpoint that `results` compare it with, if any.
        value: the figure that sums it up, with the ends of its interval; None where there is none to give.
        seeds: what it was drawn by.
        results: everything else.
    """

    checkpoint_id: str
    evaluation: str
    version: str
    results: dict[str, Any]
    window_id: str | None = None
    baseline_id: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: Sequence[int] | None = None
    created_at: datetime | None = None


def get(conn: Connection[Any], checkpoint_id: str, evaluation: str, version: str) -> Evaluation | None:
    """What was measured, or None."""
    query = CHECKPOINT_EVALUATIONS.select("WHERE checkpoint_id = %s AND evaluation = %s AND version = %s")
    with conn.cursor(row_factory=class_row(Evaluation)) as cursor:
        return cursor.execute(query, [checkpoint_id, evaluation, version]).fetchone()


def keep(conn: Connection[Any], evaluation: Evaluation) -> Evaluation:
    """Keep a measurement, in the caller's transaction or in one of its own; the one that was there before stands."""
    names = [item.name for item in fields(evaluation) if item.name != "created_at"]
    values = {name: getattr(evaluation, name) for name in names}
    values |= {"results": json_value(evaluation.results), "seeds": list(evaluation.seeds or []) or None}
    with conn.transaction():
        conn.execute(CHECKPOINT_EVALUATIONS.insert(names, "ON CONFLICT DO NOTHING"), values)
    kept = get(conn, evaluation.checkpoint_id, evaluation.evaluation, evaluation.version)
    assert kept is not None  # it was inserted, or stood there
    return kept


def of_checkpoint(conn: Connection[Any], checkpoint_id: str) -> list[Evaluation]:
    """Everything that was measured of a checkpoint, oldest first."""
    query = CHECKPOINT_EVALUATIONS.select("WHERE checkpoint_id = %s ORDER BY created_at, evaluation, version")
    with conn.cursor(row_factory=class_row(Evaluation)) as cursor:
        return cursor.execute(query, [checkpoint_id]).fetchall()


def newest_of_checkpoint(conn: Connection[Any], checkpoint_id: str, most: int) -> tuple[list[Evaluation], int]:
    """The newest measurements of a checkpoint, and how many there are in all.

    The newest of each evaluation come first, then the others, then the off-policy estimates; each newest first.
    """
    query = CHECKPOINT_EVALUATIONS.select(
        "WHERE checkpoint_id = %s ORDER BY evaluation = 'off_policy', "
        "row_number() OVER (PARTITION BY evaluation ORDER BY created_at DESC, version DESC) > 1, "
        "created_at DESC, evaluation DESC, version DESC LIMIT %s"
    )
    with conn.cursor(row_factory=class_row(Evaluation)) as cursor:
        newest = cursor.execute(query, [checkpoint_id, most]).fetchall()
    count = "SELECT count(*)::int FROM babylon_training.checkpoint_evaluations WHERE checkpoint_id = %s"
    return newest, conn.execute(count, [checkpoint_id]).fetchall()[0][0]


def read_rewards(conn: Connection[Any]) -> dict[str, float]:
    """The reward of each checkpoint that has one, by checkpoint id; see `REWARD`."""
    query: LiteralString = f"SELECT made.id, best.value FROM babylon_training.model_checkpoints AS made {REWARD}"
    return {checkpoint: value for checkpoint, value in conn.execute(query) if value is not None}


def of_both(conn: Connection[Any], first_id: str, second_id: str) -> list[tuple[Evaluation, Evaluation]]:
    """What both checkpoints were measured by, by the same evaluation in the same version, newest first."""
    ours = {(row.evaluation, row.version): row for row in _shared(conn, first_id, second_id)}
    return [(ours[row.evaluation, row.version], row) for row in _shared(conn, second_id, first_id)]


def _shared(conn: Connection[Any], checkpoint_id: str, other_id: str) -> list[Evaluation]:
    """What was measured of a checkpoint in the same way as of another, newest first."""
    query = CHECKPOINT_EVALUATIONS.select(
        "WHERE checkpoint_id = %s AND (evaluation, version) IN ("
        "SELECT evaluation, version FROM babylon_training.checkpoint_evaluations WHERE checkpoint_id = %s) "
        "ORDER BY created_at DESC, evaluation DESC, version DESC"
    )
    with conn.cursor(row_factory=class_row(Evaluation)) as cursor:
        return cursor.execute(query, [checkpoint_id, other_id]).fetchall()
