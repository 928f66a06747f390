"""The few writes into the game's own tables, each behind a switch: which model it may serve, and what was trained on.

Nothing is added to the game's schema. Every row of ours in `trained_models` has an id that begins with `OURS`; others'
rows are never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.types.json import Jsonb

from babylon_assets.environments.babylon.refusals import explain_refusal
from babylon_assets.environments.base import DeployedModel

_REMEDY = (
    "grant INSERT and UPDATE on trained_models and UPDATE on trajectories to the role, "
    "or set WRITE_TRAINED_MODELS=false"
)

#: How the id of every row of ours begins.
OURS = "babylon-assets-"
#: The game's columns are `timestamp(3)` that holds UTC.
_NOW: LiteralString = "(clock_timestamp() AT TIME ZONE 'UTC')"

# A checkpoint that an earlier one takes the place of was rolled back, where the game has a word for that.
_ARCHIVE: LiteralString = f"""
UPDATE public.trained_models SET "archivedAt" = {_NOW}, "updatedAt" = {_NOW},
    "status" = CASE WHEN %(may_roll_back)s AND coalesce(substring("version" FROM '[0-9]+$')::int8, 0) > %(step)s
        THEN 'rolled_back' ELSE 'archived' END
WHERE starts_with("id", %(ours)s) AND "id" <> %(id)s AND "status" IN ('ready', 'deployed')"""
# The game serves the newest of what is ready or deployed, so that the row must be newer than everybody's.
_DEPLOY: LiteralString = f"""
INSERT INTO public.trained_models AS model
    ("id", "modelId", "version", "baseModel", "trainingBatch", "status", "deployedAt", "storagePath",
     "benchmarkScore", "avgReward", "evalMetrics", "createdAt", "updatedAt")
VALUES (%(id)s, %(model_id)s, %(version)s, %(base_model)s, %(batch)s, 'deployed', {_NOW}, %(storage_path)s,
        %(benchmark_score)s, %(avg_reward)s, %(metrics)s, greatest({_NOW}, (
            SELECT max("createdAt") + interval '1 millisecond' FROM public.trained_models
            WHERE "status" IN ('ready', 'deployed') AND "id" <> %(id)s)), {_NOW})
ON CONFLICT ("id") DO UPDATE SET
    "status" = 'deployed', "deployedAt" = excluded."deployedAt", "archivedAt" = NULL,
    "benchmarkScore" = excluded."benchmarkScore", "avgReward" = excluded."avgReward",
    "evalMetrics" = excluded."evalMetrics", "createdAt" = excluded."createdAt", "updatedAt" = excluded."updatedAt"
"""
_SERVED: LiteralString = """
SELECT "id", "storagePath" FROM public.trained_models WHERE "status" IN ('ready', 'deployed')
ORDER BY "createdAt" DESC, "id" LIMIT 1"""
_MARK: LiteralString = f"""
UPDATE public.trajectories SET "usedInTraining" = true, "trainedInBatch" = %(batch)s, "updatedAt" = {_NOW}
WHERE "trajectoryId" = ANY(%(trajectories)s)
    AND (NOT "usedInTraining" OR "trainedInBatch" IS DISTINCT FROM %(batch)s)"""


def row_id(model: DeployedModel) -> str:
    """The id of a checkpoint's row: a checkpoint has one."""
    return OURS + model.checkpoint_id


def deploy_model(conn: Connection[Any], model: DeployedModel, *, may_roll_back: bool = False) -> bool:
    """Make a checkpoint the one row of ours that the game may serve, and the one that it picks.

    Later ones of ours become `rolled_back` where the game knows that status, all others `archived`. In the caller's
    transaction, or in one of its own; False, and nothing is written, when that is so already.

    Raises:
        SourceError: the table is missing, or the role may not write it.
    """
    with explain_refusal(_REMEDY), conn.transaction():
        conn.execute("LOCK TABLE public.trained_models IN SHARE ROW EXCLUSIVE MODE")
        known = {"ours": OURS, "id": row_id(model), "step": model.step, "may_roll_back": may_roll_back}
        archived = conn.execute(_ARCHIVE, known).rowcount
        if not archived and served(conn) == (row_id(model), model.inference_name):
            return False
        version = _free_version(conn, model)
        values = {
            **known,
            "model_id": f"{model.chain}-{version}",
            "version": version,
            "base_model": model.base_model,
            "batch": model.batch,
            "storage_path": model.inference_name,
            "benchmark_score": model.benchmark_score,
            "avg_reward": model.avg_reward,
            "metrics": Jsonb(dict(model.metrics)),
        }
        conn.execute(_DEPLOY, values)
    return True


def served(conn: Connection[Any]) -> tuple[str, str] | None:
    """What the game's own selection picks: the id and the storage path of that row; None while there is none."""
    row = conn.execute(_SERVED).fetchone()
    return None if row is None else (row[0], row[1])


def mark_used(conn: Connection[Any], trajectories: Sequence[str], batch: str) -> int:
    """Mark the trajectories that a checkpoint was trained on, and count those that were not marked so yet.

    Raises:
        SourceError: the table is missing, or the role may not write it.
    """
    with explain_refusal(_REMEDY), conn.transaction():
        return conn.execute(_MARK, {"trajectories": list(trajectories), "batch": batch}).rowcount


def _free_version(conn: Connection[Any], model: DeployedModel) -> str:
    """`v1.0.<step>`, or with the next major number that no row of somebody else's has under this chain's name."""
    rows = conn.execute(
        'SELECT "modelId" FROM public.trained_models WHERE "id" <> %s AND starts_with("modelId", %s)',
        [row_id(model), f"{model.chain}-v"],
    ).fetchall()
    taken = {row[0] for row in rows}
    return next(version for version in _versions(model.step) if f"{model.chain}-{version}" not in taken)


def _versions(step: int) -> Iterator[str]:
    return (f"v{major}.0.{step}" for major in count(1))
