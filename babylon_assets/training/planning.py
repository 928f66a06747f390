"""What is to be trained, fixed before the first step: from which checkpoint, on which samples, how.

A plan's manifest is what the checkpoint is made from; its hash is the checkpoint's id. Where a branch goes is decided
in `branches`, and whether a window is trained at all in `window_training`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.errors import ChainConflict, PermanentError
from babylon_assets.domain.policies import main_chain, policy_name
from babylon_assets.ledger import checkpoints, training_jobs
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.lineage import policy_lags
from babylon_assets.ledger.verdicts import without_verdict
from babylon_assets.training.backend import TrainingBackend
from babylon_assets.training.backends import registry
from babylon_assets.training.branches import Branch
from babylon_assets.training.precision import train_dtype
from babylon_assets.training.recompute import fill, leave_out_longer
from babylon_assets.training.roots import base_model_of, root_of
from babylon_assets.training.selection import Selection, select, without_spelled_tokens
from babylon_assets.training.step_memory import TOO_LARGE, available_bytes, leave_out_heavier
from babylon_assets.training.template_limits import without_inexpressible


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides a checkpoint, fixed before the first step."""

    window: str
    dataset: Dataset
    chain: str
    step: int
    parent: Checkpoint
    base_model: str
    backend: TrainingBackend
    selection: Selection
    manifest: dict[str, Any]

    @property
    def on_branch(self) -> bool:
        """Whether the window's own row is left as it is: that one tells of the main chain."""
        return main_chain(self.chain) != self.chain


def plan_training(
    settings: Settings,
    database: Database,
    dataset: Dataset,
    open_job: training_jobs.Job | None = None,
    branch: Branch | None = None,
) -> Plan:
    """What is to be trained; for a job that was submitted before, what was written down then.

    Raises:
        PermanentError: the backend cannot train this, a hosted job waits to be fetched, or the checkpoint to train from
            was not judged.
        ChainConflict: the chain was begun from another base model, or trained by another backend.
    """
    backend = registry.choose_backend(settings).backend
    _require_possible(backend, open_job, branch)
    base_model = base_model_of(settings)
    chain = branch.chain if branch else settings.model_name
    with database.connect() as conn:
        root = root_of(conn, settings, base_model)
        parent = branch.parent if branch else checkpoints.head(conn, chain) or root
        if settings.gate.enabled and branch is None and open_job is None:
            _require_judged(conn, parent)
        step = checkpoints.next_step(conn, chain, parent)
    _require_parent(backend, parent, chain, step, open_job)
    expressible = without_inexpressible(dataset, base_model)
    readable, recomputed, lags = _readable(settings, database, expressible, parent, base_model, backend)
    selection = choose_samples(settings, readable, parent, base_model, backend, lags)
    rewards = {"reward_weights": dict(branch.reward_weights)} if branch and branch.reward_weights is not None else {}
    manifest = {
        "format": 1,
        "chain": chain,
        "parent": parent.id,
        "dataset": dataset.id,
        "backend": backend.name,
        "base_model": root.weights_sha256,
        "method": selection.method,
        "max_policy_lag": settings.training.max_policy_lag,
        "settings": {**backend.manifest_settings(settings, base_model), **rewards},
        "versions": backend.versions(),
        **({"recomputed": recomputed} if recomputed else {}),
        **({"too_large": lost} if (lost := selection.left_out.get(TOO_LARGE, 0)) else {}),
    }
    if open_job is not None:
        manifest = (open_job.usage or {})["manifest"]
    return Plan(
        window=dataset.window,
        dataset=dataset,
        chain=chain,
        step=step,
        parent=parent,
        base_model=base_model,
        backend=backend,
        selection=selection,
        manifest=manifest,
    )


def choose_samples(
    settings: Settings,
    readable: Dataset,
    parent: Checkpoint,
    base_model: str,
    backend: TrainingBackend,
    lags: dict[str, int],
) -> Selection:
    """The samples that are trained on: those that the backend can take, and the model and the memory have room for.

    Args:
        readable: the dataset, without what cannot be made into tokens.
        lags: as of `selection.select`.
    """
    if backend.capabilities.reads_texts:
        readable = without_spelled_tokens(readable)
    selection = select(readable, parent.step, settings.training.max_policy_lag, lags)
    selection = leave_out_longer(selection, base_model)
    if backend.capabilities.recomputes_logprobs:  # it trains in this process
        selection = leave_out_heavier(selection, base_model, available_bytes(), train_dtype(settings, base_model))
    return _possible(selection, backend)


def _possible(selection: Selection, backend: TrainingBackend) -> Selection:
    """The samples that the backend can train on; what it cannot is counted."""
    if not backend.capabilities.imitates:
        selection = selection.recorded_only(f"{backend.title} trains on recorded log-probabilities alone")
    if not backend.capabilities.carries_late_samples:
        selection = selection.groups_only(f"{backend.title} compares answers within a group alone")
    return selection


def _require_possible(backend: TrainingBackend, open_job: training_jobs.Job | None, branch: Branch | None) -> None:
    if open_job is not None and open_job.backend not in (None, backend.name):
        submitted_by = registry.find_backend(str(open_job.backend))
        raise PermanentError(
            f"{submitted_by.title} has a job of {open_job.window_id} that has not been fetched; set "
            f"TRAINING_BACKEND={submitted_by.name} until it is, or BABYLON_MODEL to a new name to begin a new chain"
        )
    if branch is not None and not backend.capabilities.branches:
        raise PermanentError(
            f"{backend.title} trains a model from its newest step on and begins no branch; "
            "set TRAINING_BACKEND=embedded and a chain that was trained on this machine"
        )


def _require_parent(
    backend: TrainingBackend, parent: Checkpoint, chain: str, step: int, open_job: training_jobs.Job | None
) -> None:
    """The backend has the parent's weights, and they are where it trains from."""
    if parent.backend not in ("base", backend.name):
        raise ChainConflict(
            f"the chain {chain} was trained by the {parent.backend} backend so far, and {backend.name} has "
            f"not got its weights; set TRAINING_BACKEND={parent.backend}, or BABYLON_MODEL to a new name"
        )
    if not backend.capabilities.branches and step > parent.step + 1 and open_job is None:
        raise PermanentError(
            f"{backend.title} trains from its newest step, and {policy_name(chain, step - 1)} was rejected: "
            "set BABYLON_MODEL to a new name to begin a new chain"
        )


def _require_judged(conn: Connection[Any], parent: Checkpoint) -> None:
    """With the gate on, nothing is trained from a checkpoint on which there is no verdict: it may yet be refused."""
    if without_verdict(conn, parent.chain) is not None:
        raise PermanentError(
            f"{policy_name(parent.chain, parent.step)} has no verdict yet; run its window again (`babylon train "
            f"{parent.window_id}`), or set GATE=false to train without verdicts"
        )


def _readable(
    settings: Settings,
    database: Database,
    dataset: Dataset,
    parent: Checkpoint,
    base_model: str,
    backend: TrainingBackend,
) -> tuple[Dataset, int, dict[str, int]]:
    """The dataset with what can be recomputed on this machine, how many answers that are, and the policies' lags."""
    with database.connect() as conn:
        lags = policy_lags(conn, parent, {sample.policy for sample in dataset.samples if sample.policy})
        recomputes = any(sample.trains_as == "recompute" for sample in dataset.samples)
        if not recomputes or not backend.capabilities.recomputes_logprobs:
            return dataset, 0, lags
        known = checkpoints.family(conn, settings.model_name)
    prepare_libraries(settings)
    return *fill(base_model, dataset, known, lags, settings.training.max_policy_lag), lags
