"""The game's table `benchmark_results`: how a policy of ours played a benchmark snapshot, in the game's own form.

Feed has it; where it is missing nothing is written. A row of ours has an id by its content, so that a measurement is
written once.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Connection
from psycopg.types.json import Json

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.evaluations import BenchmarkResult
from babylon_assets.environments.babylon.refusals import explain_refusal
from babylon_assets.environments.babylon.writeback import OURS

_REMEDY = "grant SELECT and INSERT on benchmark_results to the role, or set WRITE_TRAINED_MODELS=false"
_THERE = "SELECT to_regclass('public.benchmark_results') IS NOT NULL"
#: The id that the game knows the checkpoint by, where it was told of it.
_MODEL_ID: LiteralString = """coalesce(
    (SELECT "modelId" FROM public.trained_models WHERE id = %(row)s), %(inference_name)s)"""
_WRITE: LiteralString = f"""
INSERT INTO public.benchmark_results
    (id, "modelId", "benchmarkId", "benchmarkPath", "runAt", "totalPnl", "predictionAccuracy", "perpWinRate",
     "optimalityScore", "detailedMetrics", "baselinePnlDelta", "baselineAccuracyDelta", improved, duration, "createdAt")
SELECT %(id)s, {_MODEL_ID}, %(benchmark)s, %(path)s, now, %(pnl)s, %(accuracy)s, %(win_rate)s, %(of_optimal)s,
    %(metrics)s, %(pnl_delta)s, %(accuracy_delta)s, %(improved)s, %(milliseconds)s, now
FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now) AS clock
ON CONFLICT (id) DO NOTHING"""


def write_benchmark(conn: Connection[Any], result: BenchmarkResult) -> bool:
    """Write how a policy played a snapshot; False, and nothing is written, where the game has no such table or has it.

    The table takes no null for a share: one that is not known, such as the accuracy of a policy that made no bet, is 0
    there and null among `detailedMetrics`.

    Raises:
        SourceError: the role may not write it.
    """
    if conn.execute(_THERE).fetchone() != (True,):
        return False
    shares = {name: result.figures.get(name) for name in ("accuracy", "win_rate", "of_optimal")}
    row = {
        "id": OURS + content_id([result.checkpoint_id, result.benchmark, result.version])[:32],
        "row": OURS + result.checkpoint_id,
        "inference_name": result.inference_name,
        "benchmark": result.benchmark,
        "path": result.path,
        "pnl": result.pnl,
        **{name: 0.0 if share is None else share for name, share in shares.items()},
        "metrics": Json(dict(result.figures)),
        "pnl_delta": None if result.base_pnl is None else result.pnl - result.base_pnl,
        "accuracy_delta": _difference(shares["accuracy"], result.base_accuracy),
        "improved": None if result.base_pnl is None else result.pnl > result.base_pnl,
        "milliseconds": result.milliseconds,
    }
    with explain_refusal(_REMEDY), conn.transaction():
        return conn.execute(_WRITE, row).rowcount > 0


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base
