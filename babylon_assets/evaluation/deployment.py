"""Telling the game which model to serve, where WRITE_TRAINED_MODELS allows it: the live checkpoint, and nothing else.

Safe to repeat: what the game's tables say already is not written again.
"""

from __future__ import annotations

from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.policies import policy_name
from babylon_assets.environments.babylon.writeback import DeployedModel, deploy_model, mark_used
from babylon_assets.environments.simulated import market_evaluation
from babylon_assets.ledger import evaluations, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.lineage import trained_trajectories


def tell_game(settings: Settings, database: Database) -> str | None:
    """Deploy the live checkpoint in the game's own tables and mark what it was trained on; None when switched off.

    Returns:
        The inference name that the game then asks for.

    Raises:
        SourceError: the game's tables are missing, or may not be written.
    """
    if not settings.gate.write_trained_models:
        return None
    version = market_evaluation.version(settings.gate.evaluation_seeds, settings.rewards)
    with database.connect() as conn, conn.transaction():
        live = promotions.promoted(conn, settings.model_name)
        if live is None:
            return None
        measured = evaluations.get(conn, live.id, market_evaluation.NAME, version)
        deploy_model(conn, _model(live, measured))
        if live.dataset_id is not None:
            mark_used(conn, list(trained_trajectories(conn, live)), live.id)
    return policy_name(live.chain, live.step)


def _model(live: Checkpoint, measured: evaluations.Evaluation | None) -> DeployedModel:
    shown: dict[str, Any] = {}
    if measured is not None:
        shown = {name: measured.results[name] for name in ("valid_share", "advantage")}
        shown |= {"market_reward": measured.value, "evaluation": f"{market_evaluation.NAME}@{measured.version}"}
    return DeployedModel(
        checkpoint_id=live.id,
        chain=live.chain,
        step=live.step,
        base_model=live.base_model,
        batch=live.id if live.dataset_id else None,
        inference_name=policy_name(live.chain, live.step),
        benchmark_score=shown.get("advantage"),
        avg_reward=shown.get("market_reward"),
        metrics=shown,
    )
