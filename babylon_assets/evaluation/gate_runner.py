"""Judging a checkpoint: measure it and what it is compared with, ask the gate, and carry the verdict out.

A verdict is final: judging a checkpoint again gives the one that is kept. Verdict, promotion and rejection are one
transaction: a process that is killed leaves a checkpoint judged or not judged. How to measure is in `measurements`, and
what a measurement leads to in `domain.gates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from babylon_assets.config.gate import GateSettings
from babylon_assets.config.settings import Settings
from babylon_assets.domain.checkpoint_states import explain_end
from babylon_assets.domain.evaluations import Interval, paired
from babylon_assets.domain.gates import Challenger, GateVerdict, Measurement, Rules, may_promote
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.prompt_evaluation import PromptComparison, compare_answers
from babylon_assets.domain.token_counts import trained_tokens
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation.loaded_policies import why_not_loadable
from babylon_assets.evaluation.measurements import (
    kept_benchmark,
    measure_benchmark,
    measure_off_policy,
    measure_prompts,
    prompts_asked,
)
from babylon_assets.evaluation.recorded_prompts import answers_of
from babylon_assets.evaluation.served_results import reward_agreement
from babylon_assets.evaluation.snapshot_evaluation import measure_snapshots
from babylon_assets.ledger import checkpoints, promotions, windows
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.ledger.trajectories import summary
from babylon_assets.ledger.verdicts import StoredVerdict, store_verdict, verdict_on, without_verdict

GATE = "gate"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate says of a checkpoint, and whether it is what the chain goes on from now."""

    checkpoint: Checkpoint
    passed: bool
    why: str


def decide_head(settings: Settings, database: Database, dagster_run_id: str | None = None) -> GateDecision | None:
    """Judge the checkpoint that the chain would go on from, if nothing was said of it yet.

    Called before anything is trained: a run that was killed between training and the gate leaves its checkpoint
    unjudged, and the next run judges it. None when there is nothing to judge.
    """
    with database.connect() as conn:
        head = without_verdict(conn, settings.model_name)
    return None if head is None else decide(settings, database, head, dagster_run_id)


def decide(
    settings: Settings, database: Database, checkpoint: Checkpoint, dagster_run_id: str | None = None
) -> GateDecision:
    """Promote a checkpoint or reject it, as the gate says; with GATE=false, promote it."""
    with database.connect() as conn:
        kept = verdict_on(conn, checkpoint.id)
        fresh = checkpoints.get(conn, checkpoint.id) or checkpoint
        head = checkpoints.head(conn, checkpoint.chain)
        champion = promotions.promoted(conn, checkpoint.chain) or _root(conn, checkpoint.chain)
    if kept is not None:
        return GateDecision(fresh, kept.passed, kept.why)
    if fresh.rejected is not None:
        return GateDecision(fresh, False, explain_end(fresh.rejected))
    if head is None or head.id != fresh.id:
        return GateDecision(fresh, True, "the chain has gone on from it")
    if champion.id == fresh.id:
        return GateDecision(fresh, True, "it is served")
    verdict = _verdict(settings, database, fresh, champion) if settings.gate.enabled else None
    return _carry_out(database, fresh, champion, verdict, dagster_run_id)


def _carry_out(
    database: Database, checkpoint: Checkpoint, champion: Checkpoint, verdict: GateVerdict | None, run: str | None
) -> GateDecision:
    """Keep the verdict and do what it says; what was decided meanwhile, by a person or another run, stands."""
    passed, why = (verdict.passed, verdict.why) if verdict else (True, "GATE is false: every checkpoint is promoted")
    with database.connect() as conn, conn.transaction():
        checkpoints.lock_line(conn, checkpoint.chain)
        if verdict is not None and not store_verdict(conn, _stored_verdict(checkpoint, champion, verdict, run)):
            kept = verdict_on(conn, checkpoint.id)
            assert kept is not None  # it stood in the way
            return GateDecision(checkpoint, kept.passed, kept.why)
        head, served = checkpoints.head(conn, checkpoint.chain), promotions.promoted(conn, checkpoint.chain)
        if head is not None and head.id == checkpoint.id and not (served is not None and served.id == head.id):
            if passed:
                record = verdict.record() if verdict else None
                promotions.promote(conn, head, by=GATE, why=why, verdict=record, dagster_run_id=run)
            else:
                checkpoints.reject(conn, head.id, f"refused: {why}")
    return GateDecision(checkpoint, passed, why)


def _stored_verdict(
    checkpoint: Checkpoint, champion: Checkpoint, verdict: GateVerdict, run: str | None
) -> StoredVerdict:
    return StoredVerdict(
        checkpoint_id=checkpoint.id,
        chain=checkpoint.chain,
        champion_id=champion.id,
        passed=verdict.passed,
        why=verdict.why,
        verdict=verdict.record(),
        dagster_run_id=run,
    )


def _verdict(settings: Settings, database: Database, checkpoint: Checkpoint, champion: Checkpoint) -> GateVerdict:
    """Measure what the gate asks for, and ask it."""
    theirs = measure_benchmark(settings, database, champion)
    ours = measure_benchmark(settings, database, checkpoint, champion)
    recorded = _recorded_prompts(settings, database, checkpoint, champion)
    compared, groups = _off_policy_difference(settings, database, checkpoint, champion)
    with database.connect() as conn:
        row = windows.get_window(conn, checkpoint.window_id or "")
        read = summary(conn, checkpoint.window_id or "")
        agreement = reward_agreement(conn, checkpoint.window_id or "")
        best = _best(conn, settings, checkpoint.chain)
    challenger = Challenger(
        name=_name(checkpoint),
        market=_measurement(ours, checkpoint),
        unmeasured=why_not_loadable(settings, checkpoint) or why_not_loadable(settings, champion) or "",
        numbers={name: checkpoint.metrics[name] for name in ("loss", "grad_norm") if name in checkpoint.metrics},
        trained_tokens=trained_tokens(checkpoint.metrics),
        window_status=row.status if row else "open",
        quarantined=read.quarantined / max(1, read.trajectories + read.quarantined),
        agreement=agreement,
        off_policy=compared,
        off_policy_groups=groups,
        recorded=recorded,
    )
    return may_promote(challenger, _measurement(theirs, champion), best, rules_of(settings.gate))


def rules_of(settings: GateSettings) -> Rules:
    """The gate's rules as the settings have them."""
    return Rules(
        confidence=settings.confidence,
        margin=settings.margin,
        decline=settings.decline,
        valid_drop=settings.valid_drop,
        off_policy_margin=settings.replay_margin,
        quarantined=settings.quarantined,
    )


def _recorded_prompts(
    settings: Settings, database: Database, checkpoint: Checkpoint, champion: Checkpoint
) -> PromptComparison | None:
    """Both policies on the environment's recorded prompts, and on its snapshots where GATE_SNAPSHOTS has any.

    None where the gate does not go by such answers.
    """
    environment = open_environment(settings)
    if environment.answers is None or not environment.gate_asks_prompts:
        return None
    places = prompts_asked(settings, database, checkpoint.window_id or "")
    theirs, ours = (
        answers_of(measure_prompts(settings, database, policy, places))
        | answers_of(measure_snapshots(settings, database, policy))
        for policy in (champion, checkpoint)
    )
    return compare_answers(ours, theirs, confidence=settings.gate.confidence)


def _off_policy_difference(
    settings: Settings, database: Database, checkpoint: Checkpoint, champion: Checkpoint
) -> tuple[Interval | None, int]:
    """By how much the challenger prefers the better held-out answers more than the champion, over how many groups."""
    with database.connect() as conn:
        dataset = load_dataset(conn, checkpoint.dataset_id or "")
    both = [measure_off_policy(settings, database, policy, dataset) for policy in (checkpoint, champion)]
    ours, theirs = ({} if policy is None else policy.results["preferences"] for policy in both)
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None, 0
    return paired([ours[group] for group in shared], [theirs[group] for group in shared]), len(shared)


def _best(conn: Connection[Any], settings: Settings, chain: str) -> Measurement | None:
    """The best that was ever promoted, among those that were measured by the same version."""
    ids = {row.to_id for row in promotions.history(conn, chain)}
    promoted = [row for name in sorted(ids) if (row := checkpoints.get(conn, name)) is not None]
    measured = [(row, kept_benchmark(settings, conn, row)) for row in promoted]
    known = [(row, kept) for row, kept in measured if kept is not None and kept.value is not None]
    if not known:
        return None
    checkpoint, best = max(known, key=lambda pair: pair[1].value or 0.0)
    return _measurement(best, checkpoint)


def _measurement(evaluation: Evaluation | None, checkpoint: Checkpoint) -> Measurement | None:
    return (
        None
        if evaluation is None
        else Measurement(_name(checkpoint), evaluation.results["rewards"], evaluation.results["valid"])
    )


def _root(conn: Connection[Any], chain: str) -> Checkpoint:
    return checkpoints.chain(conn, chain)[0]


def _name(checkpoint: Checkpoint) -> str:
    return policy_name(checkpoint.chain, checkpoint.step)
