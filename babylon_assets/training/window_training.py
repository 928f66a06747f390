"""Training one window: from its frozen dataset and the head of the chain to the next checkpoint in the ledger.

What keeps two runs from extending the same checkpoint is the chain's advisory lock and the ledger's unique indexes.
What makes a killed run harmless is that the next run takes up what it left: a whole checkpoint folder (`folders`) or
the id of a job that runs elsewhere (`Attempt`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.errors import ChainConflict, PermanentError, TrainingBusy, explain_failure
from babylon_assets.domain.late_data import beside, carried, late_reason
from babylon_assets.domain.token_counts import count_tokens, explain_early_end, trained_tokens
from babylon_assets.ledger import checkpoints, late_samples, training_jobs, windows
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database, chain_lock
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.training.backend import (
    Attempt,
    CheckpointPlace,
    NothingToResume,
    TrainedCheckpoint,
    TrainingRequest,
)
from babylon_assets.training.branches import Branch, BranchDataset, branch_for
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.model_cards import write_card
from babylon_assets.training.planning import Plan, plan_training
from babylon_assets.training.selection import Selection
from babylon_assets.training.step_advice import advise, why_little_is_left

Status = Literal["trained", "skipped", "thin", "unchanged", "superseded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWindow:
    """What became of a window.

    Attributes:
        status: trained; skipped (nothing in it can be trained on); thin (passed through); unchanged (this dataset was
            trained before); superseded (the chain has moved past this window and is not rewritten).
        checkpoint: the window's checkpoint, None when it has none.
        parent: the checkpoint that was, or would have been, trained from; None before a chain begins.
        trained_tokens: tokens of answers that steps which were kept saw, each once.
        left_out: samples that were not trained on, by reason.
        steps: metrics of each optimizer step.
    """

    status: Status
    reason: str
    checkpoint: Checkpoint | None = None
    parent: Checkpoint | None = None
    method: str = "nothing"
    trained_tokens: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def train_window(
    settings: Settings, database: Database, window: str, dagster_run_id: str | None = None
) -> TrainedWindow:
    """Train the next checkpoint of the chain on a window's dataset, or say why there is none.

    Safe to repeat: the same dataset is never trained twice, and a run that was killed is taken up where it stopped.

    Raises:
        PermanentError: the window has no dataset, or the chain was begun from another base model.
        TrainingBusy: another run is training this chain.
    """
    row, dataset = _frozen(database, window)
    with chain_lock(database, settings.model_name):
        with database.connect() as conn:
            training_jobs.fail_orphaned_jobs(conn, settings.model_name)
            settled = _settle(conn, settings, window, dataset, row)
            open_job = training_jobs.submitted_job(conn, settings.model_name)
        if settled is not None:
            return settled
        if open_job is not None:
            dataset = _dataset_of(database, open_job, window)
        return _train(settings, database, dataset, open_job, dagster_run_id)


def train_branch(
    settings: Settings,
    database: Database,
    window: str,
    name: str | None = None,
    dagster_run_id: str | None = None,
    own: BranchDataset | None = None,
) -> TrainedWindow:
    """Train a window that the chain has passed beside the chain: see `branches`.

    The chain's head and the window's row stay as they are. Safe to repeat, as `train_window` is.

    Args:
        name: of the branch; None: after the window.
        own: what is trained on; None: the window's dataset as it is now.

    Raises:
        PermanentError: the window has no dataset, the chain has not passed it, the name is taken or not allowed, or
            the backend cannot begin a branch.
        TrainingBusy: another run is training this chain or one of its branches.
    """
    dataset = _load(database, own.id) if own is not None else _frozen(database, window)[1]
    with chain_lock(database, settings.model_name):
        with database.connect() as conn:
            training_jobs.fail_orphaned_jobs(conn, settings.model_name)
            branch = branch_for(conn, settings.model_name, window, dataset.id, name)
        if branch.checkpoint is not None:
            with database.connect() as conn:
                return _unchanged(conn, branch.checkpoint, f"{branch.chain} was trained on this dataset before")
        branch = branch if own is None else replace(branch, reward_weights=own.reward_weights)
        return _train(settings, database, dataset, None, dagster_run_id, branch)


def _load(database: Database, dataset_id: str) -> Dataset:
    with database.connect() as conn:
        return load_dataset(conn, dataset_id)


def _frozen(database: Database, window: str) -> tuple[windows.WindowRow, Dataset]:
    """A window's row and its dataset as it is now."""
    with database.connect() as conn:
        row = windows.get_window(conn, window)
        if row is None or row.dataset_id is None:
            raise PermanentError(f"{window} has no dataset yet; materialize training_datasets for it first")
        return row, load_dataset(conn, row.dataset_id)


def _unchanged(conn: Connection[Any], checkpoint: Checkpoint, reason: str) -> TrainedWindow:
    """What the ledger knows of a training that is over, as it was said then; `reason` is why there is none now."""
    jobs = training_jobs.list_jobs(conn, checkpoint.chain, checkpoint.window_id or "")
    job = next((job for job in jobs if job.checkpoint_id == checkpoint.id), None)
    usage = (job.usage if job is not None else None) or {}
    return TrainedWindow(
        status="unchanged",
        reason="; ".join(filter(None, (job.reason if job is not None else None, reason))),
        checkpoint=checkpoint,
        parent=checkpoints.get(conn, checkpoint.parent_id) if checkpoint.parent_id else None,
        method=str(checkpoint.settings.get("method", "nothing")),
        trained_tokens=trained_tokens(checkpoint.metrics),
        left_out=usage.get("left_out", {}),
        steps=usage.get("steps", []),
    )


def _dataset_of(database: Database, open_job: training_jobs.Job, window: str) -> Dataset:
    """The dataset that a job at the hosted service was submitted with; it is paid for, so it is what is trained.

    Raises:
        TrainingBusy: the job is another window's, and has to end first.
    """
    if open_job.window_id != window or open_job.dataset_id is None:
        raise TrainingBusy(
            f"the hosted service has a job of {open_job.window_id} that has not been fetched; train that window first"
        )
    return _load(database, open_job.dataset_id)


def _settle(
    conn: Connection[Any], settings: Settings, window: str, dataset: Dataset, row: windows.WindowRow
) -> TrainedWindow | None:
    """What is to be said of a window that will not be trained now; None for one that will."""
    chain = settings.model_name
    head = checkpoints.head(conn, chain)
    own = checkpoints.by_window(conn, chain, window)
    if own is not None:
        same = own.dataset_id == dataset.id
        settled = _unchanged(conn, own, "this dataset was trained before" if same else late_reason(window))
        windows.upsert_window(
            conn,
            window,
            status="trained",
            checkpoint_id=own.id,
            parent_id=own.parent_id,
            reason=None if same else late_samples.reason_of(conn, chain, window),
        )
        return settled if same else replace(settled, status="superseded")
    passed = head is not None and head.window_id is not None and head.window_id > window
    if row.status == "thin":
        parent = checkpoints.newest_before(conn, chain, window) if passed else head
        windows.upsert_window(conn, window, parent_id=parent.id if parent else None)
        return TrainedWindow(status="thin", reason=row.reason or "too little to train on", parent=parent)
    if head is not None and passed:
        jobs = training_jobs.list_jobs(conn, chain, window)
        if jobs and jobs[-1].state == "skipped" and jobs[-1].dataset_id == dataset.id:
            parent = checkpoints.get(conn, jobs[-1].parent_id) if jobs[-1].parent_id else None
            return TrainedWindow(status="skipped", reason=jobs[-1].reason or "", parent=parent)
        reason = f"the chain has moved on to {head.window_id}; {beside(window)}"
        windows.upsert_window(conn, window, status="skipped", reason=reason)
        return TrainedWindow(status="superseded", reason=reason, parent=head)
    return None


def _train(
    settings: Settings,
    database: Database,
    dataset: Dataset,
    open_job: training_jobs.Job | None,
    dagster_run_id: str | None,
    branch: Branch | None = None,
) -> TrainedWindow:
    started = time.perf_counter()
    plan = plan_training(settings, database, dataset, open_job, branch)
    job = open_job
    if job is None:
        with database.connect() as conn:
            job = training_jobs.start_job(
                conn,
                window=plan.window,
                chain=plan.chain,
                parent_id=plan.parent.id,
                dataset_id=dataset.id,
                dagster_run_id=dagster_run_id,
                backend=plan.backend.name,
            )
    if plan.selection.method == "nothing":
        return _record_skip(database, plan, job.id, _why_nothing(plan.selection))
    try:
        trained = _make(settings, database, plan, job)
    except (Exception, KeyboardInterrupt) as error:  # nobody is to be told that one ended by Ctrl-C goes on
        _give_up(database, job.id, error)
        raise
    if trained is None:
        reason = "no step was kept: there was no token to train on, or every step went further than MAX_KL"
        return _record_skip(database, plan, job.id, reason)
    recorded = _record(settings, database, plan, job.id, trained, dagster_run_id, time.perf_counter() - started)
    assert recorded.checkpoint is not None
    with database.connect() as conn:
        write_card(conn, recorded.checkpoint)
    return recorded


def _make(settings: Settings, database: Database, plan: Plan, job: training_jobs.Job) -> TrainedCheckpoint | None:
    parent = plan.parent
    folder = checkpoint_folder(settings, parent.chain, parent.step) if parent.step else None
    if folder is not None and (folder / WEIGHTS).is_file():
        verify_weights(folder, parent.weights_sha256)
    request = TrainingRequest(
        base_model=plan.base_model,
        chain=plan.chain,
        samples=plan.selection,
        manifest=plan.manifest,
        place=CheckpointPlace(plan.step, folder),
        parent_path=parent.path if parent.step else "",
    )
    return plan.backend.train(settings, request, Attempt(database, job))


def _give_up(database: Database, job_id: int, error: BaseException) -> None:
    """Fail an attempt, unless its job goes on elsewhere: the next run attaches to that."""
    with database.connect() as conn:
        goes_on = training_jobs.get_job(conn, job_id).state == "submitted"
        if not goes_on or isinstance(error, NothingToResume | ChainConflict):
            training_jobs.advance_job(conn, job_id, "failed", reason=_why(error))


def _why(error: BaseException) -> str:
    return explain_failure(error) if isinstance(error, Exception) else "it was ended before it was done"


def _record(
    settings: Settings,
    database: Database,
    plan: Plan,
    job: int,
    trained: TrainedCheckpoint,
    dagster_run_id: str | None,
    seconds: float,
) -> TrainedWindow:
    steps = trained.steps
    counted = _count_tokens(plan.dataset, plan.selection, steps)
    tokens = trained_tokens(counted)
    reason = _explain(plan.selection.method, counted, _advice(database, plan, steps))
    checkpoint = Checkpoint(
        id=content_id(plan.manifest),
        chain=plan.chain,
        step=plan.step,
        parent_id=plan.parent.id,
        window_id=plan.window,
        dataset_id=plan.dataset.id,
        backend=plan.backend.name,
        base_model=plan.base_model,
        settings={**plan.manifest["settings"], "method": plan.selection.method},
        seed=settings.training.seed,
        versions=plan.manifest["versions"],
        metrics={**summary(steps), **counted, "recomputed_samples": plan.manifest.get("recomputed", 0)},
        path=trained.path,
        weights_sha256=trained.weights_sha256,
        dagster_run_id=dagster_run_id,
        created_at=datetime.now(UTC),
    )
    with database.connect() as conn, conn.transaction():
        checkpoints.insert_checkpoint(conn, checkpoint)
        usage = {"seconds": seconds, "tokens": tokens, "steps": steps, "left_out": plan.selection.left_out}
        usage = _without_manifest(training_jobs.get_job(conn, job).usage) | usage
        training_jobs.advance_job(conn, job, "trained", checkpoint_id=checkpoint.id, usage=usage, reason=reason)
        if not plan.on_branch:
            late_samples.spend(conn, plan.chain, plan.window, checkpoint.id, carried(plan.dataset))
            windows.upsert_window(
                conn,
                plan.window,
                status="trained",
                checkpoint_id=checkpoint.id,
                parent_id=plan.parent.id,
                reason=None,
            )
    return TrainedWindow(
        status="trained",
        reason=reason,
        checkpoint=checkpoint,
        parent=plan.parent,
        method=plan.selection.method,
        trained_tokens=tokens,
        left_out=plan.selection.left_out,
        steps=steps,
        seconds=seconds,
    )


def _explain(method: str, counted: Mapping[str, int], advice: str) -> str:
    """How a checkpoint was trained: on how many tokens, why on no more, and which setting to change; each fact once."""
    early_end = explain_early_end(counted)
    how = method if early_end else f"{method} on {trained_tokens(counted):,} tokens"
    return "; ".join(filter(None, [how, early_end, advice]))


def _without_manifest(usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an attempt used so far; the manifest, which a submitted one keeps there, is the checkpoint's by now."""
    return {name: value for name, value in (usage or {}).items() if name != "manifest"}


def _advice(database: Database, plan: Plan, steps: Sequence[Mapping[str, float]]) -> str:
    chosen = plan.selection.policy_gradient
    with database.connect() as conn:
        row = windows.get_window(conn, plan.window)
    own = row is not None and row.dataset_id == plan.dataset.id  # a branch may have other rewards than its window
    reward, reference = (row.reward_mean, row.reference) if row and own else (None, None)
    little = why_little_is_left([sample.advantage or 0.0 for sample in chosen], reward, reference)
    return advise(steps, plan.manifest["settings"], sum(map(_length, chosen)), little)


def _count_tokens(dataset: Dataset, selection: Selection, steps: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """What became of the tokens that can be trained on, as a checkpoint's metrics have it."""
    chosen = [*selection.policy_gradient, *selection.sft]
    trainable = sum(sample.tokens for sample in dataset.samples if sample.trains_as != "skip")
    left_out = trainable - sum(sample.tokens for sample in chosen)
    return count_tokens(steps, sum(map(_length, chosen)), left_out)


def _length(sample: Sample) -> int:
    """Tokens of its answer: those that the trainer has, where they are known."""
    return len(sample.token_ids) if sample.token_ids else sample.tokens


def _record_skip(database: Database, plan: Plan, job: int, reason: str) -> TrainedWindow:
    with database.connect() as conn, conn.transaction():
        training_jobs.advance_job(conn, job, "skipped", reason=reason)
        if not plan.on_branch:
            windows.upsert_window(conn, plan.window, status="skipped", parent_id=plan.parent.id, reason=reason)
    return TrainedWindow(status="skipped", reason=reason, parent=plan.parent, left_out=plan.selection.left_out)


def _why_nothing(selection: Selection) -> str:
    reasons = sorted(selection.left_out.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons) or "it has no sample"
    return f"nothing in the window can be trained on: {listed}"


def summary(steps: list[dict[str, float]]) -> Mapping[str, float]:
    """Means over the optimizer steps, weighted by their tokens; seconds are summed, `kl_to_parent` is the last kept."""
    total = sum(step["tokens"] for step in steps)
    if not total:
        return {}
    means = {
        name: sum(step[name] * step["tokens"] for step in steps) / total
        for name in steps[0]
        if name not in ("tokens", "seconds", "undone", "again", "kl_to_parent")
    }
    kept = (step for step in steps if "undone" not in step)
    means |= {name: step[name] for step in kept for name in step.keys() & {"kl_to_parent"}}
    counted = {"optimizer_steps": len(steps), "undone_steps": sum(step.get("undone", 0.0) for step in steps)}
    seconds = sum(step["seconds"] for step in steps)
    speed = {"tokens_per_second": total / seconds} if seconds else {}
    return {**means, **counted, **speed, "seconds": seconds}
