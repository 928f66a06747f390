"""Telling the game which model to serve, where WRITE_TRAINED_MODELS allows it: the served checkpoint, and nothing else.

Safe to repeat: what the game's tables say already is not written again.
"""

from __future__ import annotations

import logging
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.evaluations import BenchmarkResult
from babylon_assets.domain.policies import policy_name
from babylon_assets.environments.base import DeployedModel
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation.measurements import kept_benchmark
from babylon_assets.ledger import checkpoints, evaluations, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.lineage import trained_trajectories
from babylon_assets.ledger.sessions import only_reads

_log = logging.getLogger(__name__)


def tell_game(settings: Settings, database: Database) -> str | None:
    """Deploy the served checkpoint in the game's own tables and mark what it was trained on; None when switched off.

    Where the game's tables lie in a database that only reads, nothing is written, and the log says so.

    Returns:
        The inference name that the game then asks for.

    Raises:
        SourceError: the game's tables are missing, or may not be written.
    """
    write_back = open_environment(settings).write_back
    if not settings.gate.write_trained_models or write_back is None:
        return None
    with database.connect() as conn, conn.transaction(), database.source_of(conn) as source:
        served = promotions.promoted(conn, settings.model_name)
        if served is None:
            return None
        if database.is_apart and only_reads(source):
            _log.warning("WRITE_TRAINED_MODELS: the game is not told, because %s only reads", database.source_place)
            return None
        write_back.deploy(source, _model(served, kept_benchmark(settings, conn, served)))
        if served.dataset_id is not None:
            write_back.mark_used(source, list(trained_trajectories(conn, served)), served.id)
    return policy_name(served.chain, served.step)


def tell_benchmark(
    settings: Settings, database: Database, checkpoint: Checkpoint, evaluation: evaluations.Evaluation, path: str
) -> None:
    """Write how a checkpoint played a snapshot into the game's own table, where WRITE_TRAINED_MODELS allows it.

    Raises:
        SourceError: the table may not be written.
    """
    write_back = open_environment(settings).write_back
    if not settings.gate.write_trained_models or write_back is None or evaluation.value is None:
        return
    with database.connect() as conn, conn.transaction(), database.source_of(conn) as source:
        if database.is_apart and only_reads(source):
            _log.warning("WRITE_TRAINED_MODELS: no benchmark is written, because %s only reads", database.source_place)
            return
        root = next((row for row in checkpoints.chain(conn, checkpoint.chain) if row.step == 0), None)
        base = evaluations.get(conn, root.id, evaluation.evaluation, evaluation.version) if root else None
        write_back.write_benchmark(source, _benchmark_result(checkpoint, evaluation, base, path))


def _benchmark_result(
    checkpoint: Checkpoint, evaluation: evaluations.Evaluation, base: evaluations.Evaluation | None, path: str
) -> BenchmarkResult:
    assert evaluation.value is not None
    return BenchmarkResult(
        checkpoint_id=checkpoint.id,
        inference_name=policy_name(checkpoint.chain, checkpoint.step),
        benchmark=evaluation.evaluation.removeprefix("snapshot:"),
        version=evaluation.version,
        path=path,
        pnl=evaluation.value,
        base_pnl=base.value if base else None,
        base_accuracy=base.results["accuracy"] if base else None,
        figures={name: value for name, value in evaluation.results.items() if name != "equity"},
        milliseconds=round(evaluation.results.get("seconds", 0.0) * 1000),
    )


def _model(served: Checkpoint, measured: evaluations.Evaluation | None) -> DeployedModel:
    shown: dict[str, Any] = {}
    if measured is not None:
        shown = {name: measured.results[name] for name in ("valid_share", "advantage")}
        shown |= {"market_reward": measured.value, "evaluation": f"{measured.evaluation}@{measured.version}"}
    return DeployedModel(
        checkpoint_id=served.id,
        chain=served.chain,
        step=served.step,
        base_model=served.base_model,
        batch=served.id if served.dataset_id else None,
        inference_name=policy_name(served.chain, served.step),
        benchmark_score=shown.get("advantage"),
        avg_reward=shown.get("market_reward"),
        metrics=shown,
    )
