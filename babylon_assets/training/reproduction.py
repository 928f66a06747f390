"""Reproducing a checkpoint: training it once more from what the ledger says of it, in a folder of its own.

Nothing of the chain is touched: no row is written, and the folder is the caller's to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.lineage import ancestors, policy_lags
from babylon_assets.training.adapters import read_manifest
from babylon_assets.training.backend import CheckpointPlace, TrainingRequest
from babylon_assets.training.backends import registry
from babylon_assets.training.recompute import fill
from babylon_assets.training.roots import base_fingerprint
from babylon_assets.training.selection import select


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of training a checkpoint again.

    Attributes:
        recorded, reproduced: sha256 of the weights, as the ledger has it and as they came out now.
        versions: packages whose version is another one than then, as `then -> now`.
    """

    recorded: str
    reproduced: str
    versions: dict[str, str]

    @property
    def same(self) -> bool:
        """Whether the weights are the same bit for bit."""
        return self.recorded == self.reproduced


def reproduce(settings: Settings, database: Database, checkpoint: Checkpoint, home: Path) -> Reproduction:
    """Train a checkpoint again below `home` and compare its weights with those that the ledger has.

    Raises:
        PermanentError: it was not trained on this machine, or what it was made from is not there any more.
    """
    if checkpoint.parent_id is None or checkpoint.dataset_id is None or not _reproduces(checkpoint.backend):
        raise PermanentError(
            f"step {checkpoint.step} of {checkpoint.chain} was made by the {checkpoint.backend} backend; "
            "only checkpoints that were trained on this machine can be reproduced; choose another one"
        )
    with database.connect() as conn:
        parent = checkpoints.get(conn, checkpoint.parent_id)
        root = ancestors(conn, checkpoint)[-1]
        known = [
            earlier
            for earlier in checkpoints.family(conn, checkpoint.chain)
            if earlier.created_at < checkpoint.created_at
        ]
        dataset = load_dataset(conn, checkpoint.dataset_id)
        lags = policy_lags(conn, parent or root, {sample.policy for sample in dataset.samples if sample.policy})
    if parent is None or base_fingerprint(root.base_model) != root.weights_sha256:
        raise PermanentError(f"the base model of {checkpoint.chain} is not at {root.base_model} any more; restore it")
    backend = registry.find_backend(checkpoint.backend)
    again = backend.restore_settings(settings, checkpoint.settings).replace(home=home)
    place = CheckpointPlace(checkpoint.step, _parent_folder(parent))
    manifest = read_manifest(Path(checkpoint.path)) or {}
    lag = manifest.get("max_policy_lag", settings.training.max_policy_lag)
    prepare_libraries(settings)
    readable, recomputed = fill(root.base_model, dataset, known, lags, lag)
    if recomputed != checkpoint.metrics.get("recomputed_samples", 0):
        raise PermanentError(
            f"{checkpoint.metrics.get('recomputed_samples', 0)} log-probabilities were recomputed for it and only "
            f"{recomputed} can be now; restore the weights of the policies that answered"
        )
    selection = select(readable, parent.step, lag, lags)
    request = TrainingRequest(
        base_model=root.base_model, chain=checkpoint.chain, samples=selection, manifest={}, place=place
    )
    trained = backend.train(again, request)
    now = backend.versions()
    changed = {
        name: f"{then} -> {now.get(name)}" for name, then in checkpoint.versions.items() if now.get(name) != then
    }
    reproduced = trained.weights_sha256 if trained else "no step was kept"
    return Reproduction(checkpoint.weights_sha256, reproduced, changed)


def _reproduces(name: str) -> bool:
    return name in registry.registered_names() and registry.find_backend(name).capabilities.reproduces


def _parent_folder(parent: Checkpoint) -> Path | None:
    if parent.step == 0:
        return None
    if not (Path(parent.path) / WEIGHTS).is_file() or not parent.path:
        raise PermanentError(
            f"the weights of the parent, step {parent.step} of {parent.chain}, are not kept any more; "
            "restore their folder from a backup to reproduce it"
        )
    verify_weights(Path(parent.path), parent.weights_sha256)
    return Path(parent.path)
