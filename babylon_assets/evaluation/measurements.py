"""Measuring checkpoints: every evaluation is made once, kept, and taken from there ever after.

A measurement is kept under (checkpoint, evaluation, version), and the version names everything that decides its
numbers: of the policies of a window only the new one is played. What the numbers lead to is decided in `domain.gates`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.evaluations import PolicyEvaluation, bootstrap, paired
from babylon_assets.domain.prompt_evaluation import PromptPlace
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation import off_policy, recorded_prompts
from babylon_assets.evaluation.loaded_policies import adapter_of, load_policy, why_not_here, why_not_loadable
from babylon_assets.ledger import evaluations
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.evaluations import COMPARED, Evaluation
from babylon_assets.serving.engine.number_formats import LARGE
from babylon_assets.training.families import find_config
from babylon_assets.training.precision import parameters_of

#: Below this effective sample size a few answers decide an off-policy estimate, and none is shown.
LEAST_EFFECTIVE_SAMPLES = 16.0
#: Cases of a benchmark where EVALUATION_SEEDS is not set.
SEEDS, SEEDS_OF_A_LANGUAGE_MODEL = 48, 16
#: Later than every window.
LAST_WINDOW = "9999-12-31T23:59"


def measure_benchmark(
    settings: Settings,
    database: Database,
    checkpoint: Checkpoint,
    baseline: Checkpoint | None = None,
    seeds: int | None = None,
) -> Evaluation | None:
    """A checkpoint on the environment's benchmark, made now unless it is kept; None where it cannot be.

    Args:
        baseline: the checkpoint that the kept row compares it with, if that one was measured before.
        seeds: how many cases; None: EVALUATION_SEEDS.
    """
    benchmark = open_environment(settings).benchmark
    if benchmark is None:
        return None
    seeds = seeds or benchmark_seeds(settings, checkpoint)
    version = benchmark.version(seeds)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, benchmark.name, version)
        other = evaluations.get(conn, baseline.id, benchmark.name, version) if baseline else None
    if kept is not None or why_not_loadable(settings, checkpoint) is not None:
        return kept
    evaluation = _evaluation(checkpoint, benchmark.evaluate(load_policy(settings, checkpoint), seeds), other)
    with database.connect() as conn:
        return evaluations.keep(conn, replace(evaluation, evaluation=benchmark.name, version=version))


def benchmark_seeds(settings: Settings, checkpoint: Checkpoint) -> int:
    """How many cases of a benchmark evaluate a checkpoint: as EVALUATION_SEEDS says, or as its base model is fast."""
    if settings.gate.evaluation_seeds is not None:
        return settings.gate.evaluation_seeds
    is_slow = find_config(checkpoint.base_model) is not None and parameters_of(checkpoint.base_model) >= LARGE
    return SEEDS_OF_A_LANGUAGE_MODEL if is_slow else SEEDS


def _evaluation(checkpoint: Checkpoint, measured: PolicyEvaluation, other: Evaluation | None) -> Evaluation:
    known = bootstrap(measured.rewards)
    results: dict[str, Any] = {
        "rewards": list(measured.rewards),
        "valid": list(measured.valid),
        "valid_share": measured.valid_share,
        "advantage": measured.advantage,
        "oracle": list(measured.oracle),
    }
    if other is not None:
        results["difference"] = list(paired(measured.rewards, other.results["rewards"]))
    return Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation="",
        version="",
        baseline_id=other.checkpoint_id if other else None,
        value=known.value,
        low=known.low,
        high=known.high,
        seeds=measured.seeds,
        results=results,
    )


def kept_benchmark(
    settings: Settings, conn: Connection, checkpoint: Checkpoint, seeds: int | None = None
) -> Evaluation | None:
    """What is kept of a checkpoint on the environment's benchmark."""
    benchmark = open_environment(settings).benchmark
    if benchmark is None:
        return None
    version = benchmark.version(seeds or benchmark_seeds(settings, checkpoint))
    return evaluations.get(conn, checkpoint.id, benchmark.name, version)


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
    result = off_policy.score_answers(checkpoint.base_model, adapter_of(checkpoint), samples, LEAST_EFFECTIVE_SAMPLES)
    gaps = list(result.preferences.values())
    evaluation = Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=off_policy.NAME,
        version=version,
        window_id=dataset.window,
        value=result.estimate.value,
        results={
            "answers": result.answers,
            "preferences": result.preferences,
            "preference": list(bootstrap(gaps)) if gaps else None,
            "effective_samples": result.estimate.effective,
            "behaviour_reward": result.estimate.behaviour,
            "refused": result.estimate.refused,
        },
    )
    with database.connect() as conn:
        return evaluations.keep(conn, evaluation)


def prompts_asked(settings: Settings, database: Database, window: str = LAST_WINDOW) -> list[PromptPlace]:
    """The recorded prompts that a window's checkpoint is asked; none where the gate does not go by such answers."""
    environment = open_environment(settings)
    if environment.answers is None or not environment.gate_asks_prompts:
        return []
    with database.connect() as conn:
        return recorded_prompts.prompts_for(settings, conn, window)


def measure_prompts(
    settings: Settings,
    database: Database,
    checkpoint: Checkpoint,
    places: Sequence[PromptPlace],
    compared: bool = False,
    heard: recorded_prompts.Heard | None = None,
) -> Evaluation | None:
    """A checkpoint on recorded prompts of its environment, asked now unless it is kept; None where it cannot be.

    Args:
        compared: it is measured for a comparison alone, and its reward stays what it is.
        heard: called while it is asked with how many prompts are answered, of how many.
    """
    if not places:
        return None
    version = COMPARED * compared + recorded_prompts.version(settings, open_environment(settings), places)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, recorded_prompts.NAME, version)
    if kept is not None or why_not_loadable(settings, checkpoint) is not None:
        return kept
    if heard is not None:
        heard(0, len(places))
    policy = load_policy(settings, checkpoint)
    answers = recorded_prompts.ask(settings, database, checkpoint.base_model, policy, places, heard)
    with database.connect() as conn:
        return evaluations.keep(conn, recorded_prompts.evaluation_of(checkpoint, version, answers, places))


def measure_snapshot(
    settings: Settings, database: Database, checkpoint: Checkpoint, content: bytes, seeds: Sequence[int]
) -> Evaluation:
    """A checkpoint on one of the environment's benchmark snapshots, played once per seed, unless it is kept.

    `value` is the mean P&L of the runs in dollars. `why_not_loadable` was asked before.

    Raises:
        PermanentError: the environment has no snapshots, or this is none.
    """
    environment = open_environment(settings)
    snapshots = environment.snapshots
    if snapshots is None:
        raise PermanentError(f"the environment {environment.name} has no snapshots; leave --snapshot out")
    snapshot = snapshots.decode(content)
    name, version = f"snapshot:{snapshot.id}", snapshots.version(snapshot, seeds)
    with database.connect() as conn:
        kept = evaluations.get(conn, checkpoint.id, name, version)
    if kept is not None:
        return kept
    policy, started = load_policy(settings, checkpoint), time.perf_counter()
    profits, results = snapshots.play(policy, snapshot, seeds)
    results["seconds"] = time.perf_counter() - started
    pnl = bootstrap(profits)
    evaluation = Evaluation(
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
        return evaluations.keep(conn, evaluation)
