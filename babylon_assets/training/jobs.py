"""Training one window: from its frozen dataset and the head of the chain to the next checkpoint in the ledger.

What keeps two runs from extending the same checkpoint is the chain's advisory lock and the ledger's unique indexes.
What makes a killed run harmless is that the next run takes up what it left: a whole checkpoint folder (`folders`) or
the id of a job at the hosted service (`hosted_jobs`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from psycopg import Connection

from babylon_assets.core.datasets import Dataset
from babylon_assets.core.errors import ChainConflict, PermanentError, TrainingBusy
from babylon_assets.core.lineage import content_id
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.store import checkpoints, jobs, windows
from babylon_assets.store.checkpoints import Checkpoint
from babylon_assets.store.database import Database, chain_lock
from babylon_assets.store.datasets import load_dataset
from babylon_assets.training import backends
from babylon_assets.training.folders import train_in_folder
from babylon_assets.training.hosted_jobs import open_journal
from babylon_assets.training.recompute import fill
from babylon_assets.training.samples import Selection, select
from babylon_assets.training.serverless import NoHostedJob, train_serverless

Status = Literal["trained", "skipped", "thin", "unchanged", "superseded"]


@dataclass(frozen=True, slots=True)
class TrainedWindow:
    """What became of a window.

    Attributes:
        status: trained; skipped (nothing in it can be trained on); thin (passed through); unchanged (this dataset was
            trained before); superseded (the chain has moved past this window and is not rewritten).
        checkpoint: the window's checkpoint, None when it has none.
        parent: the checkpoint that was, or would have been, trained from; None before a chain begins.
        trainable_tokens: completion tokens that the optimizer saw.
        left_out: samples that were not trained on, by reason.
        steps: metrics of each optimizer step.
    """

    status: Status
    reason: str
    checkpoint: Checkpoint | None
    parent: Checkpoint | None
    method: str = "nothing"
    trainable_tokens: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that decides a checkpoint, fixed before the first step."""

    window: str
    dataset: Dataset
    parent: Checkpoint
    base_model: str
    backend: backends.BackendName
    selection: Selection
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        return self.parent.step + 1


def base_model_of(settings: Settings, progress: Any = None) -> str:
    """The base model to train: BASE_MODEL, or the backend's own; the embedded one's is made when it is missing."""
    if settings.base_model is not None:
        return settings.base_model
    if backends.choose_backend(settings).name == "serverless":
        return backends.SERVERLESS_BASE_MODELS[0]
    from babylon_assets.training.base_model import ensure_base_model

    prepare_libraries(settings)
    return str(ensure_base_model(settings.home, progress=progress))


def train_window(
    settings: Settings, database: Database, window: str, dagster_run_id: str | None = None
) -> TrainedWindow:
    """Train the next checkpoint of the chain on a window's dataset, or say why there is none.

    Safe to repeat: the same dataset is never trained twice, and a run that was killed is taken up where it stopped.

    Raises:
        PermanentError: the window has no dataset, or the chain was begun from another base model.
        TrainingBusy: another run is training this chain.
    """
    with database.connect() as conn:
        row = windows.get_window(conn, window)
        if row is None or row.dataset_id is None:
            raise PermanentError(f"{window} has no dataset yet; materialize training_datasets for it first")
        dataset = load_dataset(conn, row.dataset_id)
    with chain_lock(database, settings.model_name):
        with database.connect() as conn:
            jobs.fail_orphaned_jobs(conn, settings.model_name)
            settled = _settled(conn, settings, window, dataset, row)
            open_job = jobs.submitted_job(conn, settings.model_name)
        if settled is not None:
            return settled
        if open_job is not None:
            dataset = _dataset_of(database, open_job, window)
        return _train(settings, database, dataset, open_job, dagster_run_id)


def _dataset_of(database: Database, open_job: jobs.Job, window: str) -> Dataset:
    """The dataset that a job at the hosted service was submitted with; it is paid for, so it is what is trained.

    Raises:
        TrainingBusy: the job is another window's, and has to end first.
    """
    if open_job.window_id != window or open_job.dataset_id is None:
        raise TrainingBusy(
            f"the hosted service has a job of {open_job.window_id} that has not been fetched; train that window first"
        )
    with database.connect() as conn:
        return load_dataset(conn, open_job.dataset_id)


def _settled(
    conn: Connection[Any], settings: Settings, window: str, dataset: Dataset, row: windows.WindowRow
) -> TrainedWindow | None:
    """What is to be said of a window that will not be trained now; None for one that will."""
    chain = settings.model_name
    head = checkpoints.head(conn, chain)
    own = checkpoints.by_window(conn, chain, window)
    if own is not None:
        parent = checkpoints.get(conn, own.parent_id) if own.parent_id else None
        same = own.dataset_id == dataset.id
        reason = "this dataset was trained before" if same else "its data changed after training; the chain stays"
        tokens = int(own.metrics.get("trainable_tokens", 0))
        windows.upsert_window(
            conn,
            window,
            status="trained",
            trainable_tokens=tokens,
            checkpoint_id=own.id,
            parent_id=own.parent_id,
            reason=None if same else reason,
        )
        return TrainedWindow(
            "unchanged" if same else "superseded",
            reason,
            own,
            parent,
            method=str(own.settings.get("method", "nothing")),
            trainable_tokens=tokens,
        )
    if row.status == "thin":
        windows.upsert_window(conn, window, parent_id=head.id if head else None)
        return TrainedWindow("thin", row.reason or "too little to train on", None, head)
    if head is not None and head.window_id is not None and head.window_id > window:
        reason = f"the chain has moved on to {head.window_id}; it is not rewritten"
        windows.upsert_window(conn, window, status="skipped", reason=reason)
        return TrainedWindow("superseded", reason, None, head)
    return None


def _train(
    settings: Settings, database: Database, dataset: Dataset, open_job: jobs.Job | None, dagster_run_id: str | None
) -> TrainedWindow:
    started = time.perf_counter()
    plan = _plan(settings, database, dataset, open_job)
    job = open_job
    if job is None:
        with database.connect() as conn:
            job = jobs.start_job(
                conn, plan.window, settings.model_name, plan.parent.id, dataset.id, dagster_run_id, plan.backend
            )
    if plan.selection.method == "nothing":
        return _skipped(database, plan, job.id, _why_nothing(plan.selection))
    try:
        made = _make(settings, database, plan, job)
    except Exception as error:
        _give_up(database, job.id, error)
        raise
    if made is None:
        reason = "no step was kept: there was no token to train on, or every step went further than MAX_KL"
        return _skipped(database, plan, job.id, reason)
    return _record(settings, database, plan, job.id, made, dagster_run_id, time.perf_counter() - started)


def _make(settings: Settings, database: Database, plan: _Plan, job: jobs.Job) -> backends.Made | None:
    request = backends.TrainingRequest(plan.base_model, settings.model_name, plan.selection, plan.manifest)
    if plan.backend == "serverless":
        return train_serverless(
            settings, request, open_journal(settings, database, job, settings.model_name, plan.manifest)
        )
    with database.connect() as conn:
        jobs.advance_job(conn, job.id, "training")
    return train_in_folder(settings, request, plan.parent.step)


def _give_up(database: Database, job_id: int, error: Exception) -> None:
    """Fail an attempt, unless its job goes on at the hosted service: the next run attaches to that."""
    with database.connect() as conn:
        goes_on = jobs.get_job(conn, job_id).state == "submitted"
        if not goes_on or isinstance(error, NoHostedJob | ChainConflict):
            jobs.advance_job(conn, job_id, "failed", reason=f"{type(error).__name__}: {error}")


def _plan(settings: Settings, database: Database, dataset: Dataset, open_job: jobs.Job | None = None) -> _Plan:
    """What is to be trained; for a job that was submitted before, what was written down then."""
    backend = backends.choose_backend(settings).name
    if open_job is not None and backend != "serverless":
        raise PermanentError(
            f"the hosted service has a job of {open_job.window_id} that has not been fetched; set WANDB_API_KEY and "
            "leave TRAINING_BACKEND out until it is, or set BABYLON_MODEL to a new name to begin a new chain"
        )
    base_model = base_model_of(settings)
    with database.connect() as conn:
        root = _root(conn, settings, base_model)
        parent = checkpoints.head(conn, settings.model_name) or root
    if parent.backend not in ("base", backend):
        raise ChainConflict(
            f"the chain {settings.model_name} was trained by the {parent.backend} backend so far, and {backend} has "
            f"not got its weights; set TRAINING_BACKEND={parent.backend}, or BABYLON_MODEL to a new name"
        )
    readable, recomputed = _readable(settings, database, dataset, base_model, backend)
    selection = select(readable, parent.step, settings.max_policy_lag)
    selection = selection.recorded_only() if backend == "serverless" else selection
    manifest = {
        "format": 1,
        "chain": settings.model_name,
        "parent": parent.id,
        "dataset": dataset.id,
        "backend": backend,
        "base_model": root.weights_sha256,
        "method": selection.method,
        "max_policy_lag": settings.max_policy_lag,
        "settings": backends.trainer_settings(settings, backend),
        "versions": backends.versions(backend),
    }
    if recomputed:
        manifest["recomputed"] = recomputed
    if open_job is not None:
        manifest = (open_job.usage or {})["manifest"]
    return _Plan(dataset.window, dataset, parent, base_model, backend, selection, manifest)


def _readable(
    settings: Settings, database: Database, dataset: Dataset, base_model: str, backend: backends.BackendName
) -> tuple[Dataset, int]:
    """The dataset with the log-probabilities that can be recomputed on this machine, and how many answers that are."""
    if backend != "embedded" or not any(sample.trains_as == "recompute" for sample in dataset.samples):
        return dataset, 0
    prepare_libraries(settings)
    with database.connect() as conn:
        line = checkpoints.chain(conn, settings.model_name)
    return fill(base_model, dataset, line, settings.max_policy_lag)


def _root(conn: Connection[Any], settings: Settings, base_model: str) -> Checkpoint:
    """Step 0 of the chain: the base model as it is.

    Raises:
        ChainConflict: the chain was begun from other weights.
    """
    fingerprint = base_fingerprint(base_model)
    root = checkpoints.ensure_root(
        conn,
        Checkpoint(
            id=content_id({"chain": settings.model_name, "base_model": fingerprint}),
            chain=settings.model_name,
            step=0,
            base_model=base_model,
            weights_sha256=fingerprint,
            seed=settings.train_seed,
            created_at=datetime.now(UTC),
        ),
    )
    if root.weights_sha256 != fingerprint:
        raise ChainConflict(
            f"the chain {settings.model_name} was begun from the base model {root.base_model}, and BASE_MODEL is now "
            f"{base_model}; set it back, or set BABYLON_MODEL to a new name to begin a new chain"
        )
    return root


def base_fingerprint(base_model: str) -> str:
    """What a base model is known by: the sha256 over a folder's weights and tokenizer, or a hub's name as it is."""
    folder = Path(base_model)
    if not folder.is_dir():
        return base_model
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors" or file.name in ("config.json", "tokenizer.json"):
            with file.open("rb") as content:
                digest.update(f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()};".encode())
    return digest.hexdigest()


def _record(
    settings: Settings,
    database: Database,
    plan: _Plan,
    job: int,
    made: backends.Made,
    dagster_run_id: str | None,
    seconds: float,
) -> TrainedWindow:
    steps = made.steps
    tokens = round(sum(step["tokens"] for step in steps if "undone" not in step))
    checkpoint = Checkpoint(
        id=content_id(plan.manifest),
        chain=settings.model_name,
        step=plan.step,
        parent_id=plan.parent.id,
        window_id=plan.window,
        dataset_id=plan.dataset.id,
        backend=plan.backend,
        base_model=plan.base_model,
        settings={**plan.manifest["settings"], "method": plan.selection.method},
        seed=settings.train_seed,
        versions=plan.manifest["versions"],
        metrics={
            **summary(steps),
            "trainable_tokens": tokens,
            "recomputed_samples": plan.manifest.get("recomputed", 0),
        },
        path=made.path,
        weights_sha256=made.weights_sha256,
        dagster_run_id=dagster_run_id,
        created_at=datetime.now(UTC),
    )
    with database.connect() as conn, conn.transaction():
        checkpoints.insert_checkpoint(conn, checkpoint)
        usage = {**(jobs.get_job(conn, job).usage or {}), "seconds": seconds, "tokens": tokens}
        usage.pop("manifest", None)
        jobs.advance_job(conn, job, "trained", checkpoint_id=checkpoint.id, usage=usage)
        windows.upsert_window(
            conn,
            plan.window,
            status="trained",
            trainable_tokens=tokens,
            checkpoint_id=checkpoint.id,
            parent_id=plan.parent.id,
            reason=None,
        )
    return TrainedWindow(
        "trained",
        f"{plan.selection.method} on {tokens} tokens",
        checkpoint,
        plan.parent,
        plan.selection.method,
        tokens,
        plan.selection.left_out,
        steps,
        seconds,
    )


def _skipped(database: Database, plan: _Plan, job: int, reason: str) -> TrainedWindow:
    with database.connect() as conn, conn.transaction():
        jobs.advance_job(conn, job, "skipped", reason=reason)
        windows.upsert_window(
            conn, plan.window, status="skipped", trainable_tokens=0, parent_id=plan.parent.id, reason=reason
        )
    return TrainedWindow("skipped", reason, None, plan.parent, left_out=plan.selection.left_out)


def _why_nothing(selection: Selection) -> str:
    reasons = sorted(selection.left_out.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons) or "it has no sample"
    return f"nothing in the window can be trained on: {listed}"


def summary(steps: list[dict[str, float]]) -> Mapping[str, float]:
    """Means over the optimizer steps, weighted by their tokens; seconds are summed."""
    total = sum(step["tokens"] for step in steps)
    if not total:
        return {}
    means = {
        name: sum(step[name] * step["tokens"] for step in steps) / total
        for name in steps[0]
        if name not in ("tokens", "seconds", "undone")
    }
    counted = {"optimizer_steps": len(steps), "undone_steps": sum(step.get("undone", 0.0) for step in steps)}
    return {**means, **counted, "seconds": sum(step["seconds"] for step in steps)}
