"""Reproducing a checkpoint: training it once more from what the ledger says of it, in a folder of its own.

Nothing of the chain is touched: no row is written, and the folder is the caller's to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.datasets import Dataset
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
from babylon_assets.training.planning import choose_samples
from babylon_assets.training.recompute import fill
from babylon_assets.training.roots import base_fingerprint
from babylon_assets.training.step_memory import TOO_LARGE
from babylon_assets.training.template_limits import without_inexpressible


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
    manifest = read_manifest(Path(checkpoint.path)) or {}
    lag = manifest.get("max_policy_lag", settings.training.max_policy_lag)
    again = backend.restore_settings(settings, checkpoint.settings).replace(home=home, max_policy_lag=lag)
    place = CheckpointPlace(checkpoint.step, _parent_folder(parent))
    prepare_libraries(settings)
    readable = _readable_again(checkpoint, root, dataset, known, lags, lag)
    selection = choose_samples(again, readable, parent, root.base_model, backend, lags)
    too_large, now = manifest.get("too_large", 0), selection.left_out.get(TOO_LARGE, 0)
    if too_large != now:
        raise PermanentError(
            f"{too_large} samples were {TOO_LARGE} when it was trained, and {now} are now; reproduce it where as much "
            "memory is free"
        )
    request = TrainingRequest(
        base_model=root.base_model, chain=checkpoint.chain, samples=selection, manifest={}, place=place
    )
    trained = backend.train(again, request)
    installed = backend.versions()
    changed = {
        name: f"{version} -> {installed.get(name)}"
        for name, version in checkpoint.versions.items()
        if installed.get(name) != version
    }
    reproduced = trained.weights_sha256 if trained else "no step was kept"
    return Reproduction(checkpoint.weights_sha256, reproduced, changed)


def _readable_again(
    checkpoint: Checkpoint,
    root: Checkpoint,
    dataset: Dataset,
    known: list[Checkpoint],
    lags: dict[str, int],
    lag: int,
) -> Dataset:
    """The dataset as it was read then: with as many log-probabilities recomputed."""
    readable, recomputed = fill(root.base_model, without_inexpressible(dataset, root.base_model), known, lags, lag)
    then = checkpoint.metrics.get("recomputed_samples", 0)
    if recomputed != then:
        raise PermanentError(
            f"{then} log-probabilities were recomputed for it and only {recomputed} can be now; restore the weights of "
            "the policies that answered"
        )
    return readable


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
