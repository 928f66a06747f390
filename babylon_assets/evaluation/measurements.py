"""Measuring checkpoints: every evaluation is made once, kept, and taken from there ever after.

A measurement is kept under (checkpoint, evaluation, version), and the version names everything that decides its
numbers: of the policies of a window only the new one is played. What the numbers lead to is decided in `domain.gates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.evaluations import bootstrap, paired
from babylon_assets.environments.babylon.benchmarks import Snapshot
from babylon_assets.environments.simulated import market_evaluation, snapshots
from babylon_assets.evaluation import off_policy
from babylon_assets.evaluation.loaded_policies import adapter_of, load_policy, why_not_here, why_not_loadable
from babylon_assets.ledger import evaluations
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation

#: Below this effective sample size a few answers decide an off-policy estimate, and none is shown.
LEAST_EFFECTIVE_SAMPLES = 16.0


def measure_market(
    settings: Settings, database: Database, checkpoint: Checkpoint, baseline: Checkpoint | None = None
) -> Evaluation | None:
    """The examination of a checkpoint on the held-out market, made now unless it is kept; None where it cannot be.

    Args:
        baseline: the checkpoint that the kept row compares it with, if that one was examined before.
    """
    version = market_evaluation.version(settings.gate.evaluation_seeds, settings.rewards)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, market_evaluation.NAME, version)
        other = evaluations.get(conn, baseline.id, market_evaluation.NAME, version) if baseline else None
    if kept is not None or why_not_loadable(settings, checkpoint) is not None:
        return kept
    policy = load_policy(settings, checkpoint)
    found = market_evaluation.evaluate_policy(policy, settings.gate.evaluation_seeds, settings.rewards)
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
        evaluation=market_evaluation.NAME,
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


def measure_off_policy(
    settings: Settings, database: Database, checkpoint: Checkpoint, dataset: Dataset
) -> Evaluation | None:
    """A checkpoint on a window's held-out answers, made now unless it is kept; None where it cannot be, or without any.

    `value` is the off-policy estimate and is None where that is refused, with the reason among the results.
    """
    version = off_policy.version(dataset, LEAST_EFFECTIVE_SAMPLES)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, off_policy.NAME, version)
    samples = off_policy.held_out_samples(dataset)
    if kept is not None or not samples or why_not_here(checkpoint) is not None:
        return kept
    prepare_libraries(settings)
    found = off_policy.score_answers(checkpoint.base_model, adapter_of(checkpoint), samples, LEAST_EFFECTIVE_SAMPLES)
    gaps = list(found.preferences.values())
    made = Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=off_policy.NAME,
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


def measure_snapshot(
    settings: Settings, database: Database, checkpoint: Checkpoint, snapshot: Snapshot, seeds: Sequence[int]
) -> Evaluation:
    """A checkpoint on one of the game's benchmark snapshots, played once per seed, unless it is kept.

    `value` is the mean P&L of the runs in dollars. `why_unplayable` was asked before.
    """
    name, version = f"snapshot:{snapshot.id}", snapshots.version(snapshot, seeds)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, name, version)
    if kept is not None:
        return kept
    played = snapshots.play_snapshot(load_policy(settings, checkpoint), snapshot, seeds)
    pnl = bootstrap([performance.pnl for _, performance in played])
    results = {
        **{
            figure: _mean_known([getattr(performance, figure) for _, performance in played])
            for figure in ("optimal", "of_optimal", "accuracy", "win_rate", "drawdown")
        },
        "trades": fmean(len(run.trades) for run, _ in played),
        "valid_share": 1 - sum(run.invalid for run, _ in played) / sum(run.answers for run, _ in played),
        "runs": len(played),
        "equity": [list(performance.equity) for _, performance in played],
    }
    made = Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=name,
        version=version,
        value=pnl.value,
        low=pnl.low,
        high=pnl.high,
        seeds=seeds,
        results=results,
    )
    with database.connect() as conn:
        return evaluations.keep(conn, made)


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
