"""Measuring checkpoints: every evaluation is made once, kept, and taken from there ever after.

A measurement is kept under (checkpoint, evaluation, version), and the version names everything that decides its
numbers: of the policies of a window only the new one is played. What the numbers lead to is decided in `core.gates`.
"""

from __future__ import annotations

from typing import Any

from babylon_assets.core.datasets import Dataset
from babylon_assets.core.evaluations import bootstrap, paired
from babylon_assets.evaluation import market, replay
from babylon_assets.evaluation.players import adapter_of, player, why_unplayable
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.store import evaluations
from babylon_assets.store.checkpoints import Checkpoint
from babylon_assets.store.database import Database
from babylon_assets.store.evaluations import Evaluation


def measure_market(
    settings: Settings, database: Database, checkpoint: Checkpoint, baseline: Checkpoint | None = None
) -> Evaluation | None:
    """The examination of a checkpoint on the held-out market, made now unless it is kept; None where it cannot be.

    Args:
        baseline: the checkpoint that the kept row compares it with, if that one was examined before.
    """
    version = market.version(settings)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, market.NAME, version)
        other = evaluations.get(conn, baseline.id, market.NAME, version) if baseline else None
    if kept is not None or why_unplayable(checkpoint) is not None:
        return kept
    found = market.examine(player(settings, checkpoint), settings)
    known = bootstrap(found.rewards)
    results: dict[str, Any] = {
        "rewards": list(found.rewards),
        "valid": list(found.valid),
        "valid_share": found.valid_share,
        "advantage": found.advantage,
        "oracle": list(found.oracle),
    }
    if other is not None:
        results["difference"] = list(paired(found.rewards, other.results["rewards"]))
    made = Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=market.NAME,
        version=version,
        baseline_id=other.checkpoint_id if other else None,
        value=known.value,
        low=known.low,
        high=known.high,
        seeds=found.seeds,
        results=results,
    )
    with database.connect() as conn:
        return evaluations.keep(conn, made)


def measure_replay(
    settings: Settings, database: Database, checkpoint: Checkpoint, dataset: Dataset
) -> Evaluation | None:
    """A checkpoint on a window's held-out answers, made now unless it is kept; None where it cannot be, or without any.

    `value` is the off-policy estimate and is None where that is refused, with the reason among the results.
    """
    version = replay.version(dataset, settings.replay_effective_samples)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, replay.NAME, version)
    samples = replay.held_out(dataset)
    if kept is not None or not samples or why_unplayable(checkpoint) is not None:
        return kept
    prepare_libraries(settings)
    least = settings.replay_effective_samples
    found = replay.replay_answers(checkpoint.base_model, adapter_of(checkpoint), samples, least)
    gaps = list(found.preferences.values())
    made = Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=replay.NAME,
        version=version,
        window_id=dataset.window,
        value=found.estimate.value,
        results={
            "answers": found.answers,
            "preferences": found.preferences,
            "preference": list(bootstrap(gaps)) if gaps else None,
            "effective_samples": found.estimate.effective,
            "behaviour_reward": found.estimate.behaviour,
            "refused": found.estimate.refused,
        },
    )
    with database.connect() as conn:
        return evaluations.keep(conn, made)
