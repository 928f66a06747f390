"""Replaying a checkpoint: training it once more from what the ledger says of it, in a folder of its own.

Nothing of the chain is touched: no row is written, and the folder is the caller's to remove.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from babylon_assets.core.errors import PermanentError
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.store import checkpoints
from babylon_assets.store.checkpoints import Checkpoint
from babylon_assets.store.database import Database
from babylon_assets.store.datasets import load_dataset
from babylon_assets.store.lineage import ancestors
from babylon_assets.training import backends
from babylon_assets.training.adapters import WEIGHTS, read_manifest, weights_sha256
from babylon_assets.training.jobs import base_fingerprint
from babylon_assets.training.recompute import fill
from babylon_assets.training.samples import select


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay.

    Attributes:
        recorded, replayed: sha256 of the weights, as the ledger has it and as they came out now.
        versions: packages whose version is another one than then, as `then -> now`.
    """

    recorded: str
    replayed: str
    versions: dict[str, str]

    @property
    def same(self) -> bool:
        """Whether the weights are the same bit for bit."""
        return self.recorded == self.replayed


def replay(settings: Settings, database: Database, checkpoint: Checkpoint, home: Path) -> Replay:
    """Train a checkpoint again below `home` and compare its weights with those that the ledger has.

    Raises:
        PermanentError: it was not trained on this machine, or what it was made from is not there any more.
    """
    if checkpoint.backend != "embedded" or checkpoint.parent_id is None or checkpoint.dataset_id is None:
        raise PermanentError(
            f"step {checkpoint.step} of {checkpoint.chain} was made by the {checkpoint.backend} backend; "
            "only what was trained on this machine can be replayed, choose another one"
        )
    with database.connect() as conn:
        parent = checkpoints.get(conn, checkpoint.parent_id)
        line = ancestors(conn, checkpoint)
        root = line[-1]
        dataset = load_dataset(conn, checkpoint.dataset_id)
    if parent is None or base_fingerprint(root.base_model) != root.weights_sha256:
        raise PermanentError(f"the base model of {checkpoint.chain} is not at {root.base_model} any more; restore it")
    again = _settings_of(settings, checkpoint, home)
    _copy_parent(again, checkpoint, parent)
    manifest = read_manifest(Path(checkpoint.path)) or {}
    lag = manifest.get("max_policy_lag", settings.max_policy_lag)
    prepare_libraries(settings)
    readable, recomputed = fill(root.base_model, dataset, line, lag)
    if recomputed != checkpoint.metrics.get("recomputed_samples", 0):
        raise PermanentError(
            f"{checkpoint.metrics.get('recomputed_samples', 0)} log-probabilities were recomputed for it and only "
            f"{recomputed} can be now; restore the weights of the policies that answered"
        )
    selection = select(readable, parent.step, lag)
    backends.train_embedded(again, backends.TrainingRequest(root.base_model, checkpoint.chain, selection, {}))
    folder = backends.checkpoint_folder(again, checkpoint.chain, checkpoint.step)
    now = backends.versions()
    changed = {
        name: f"{then} -> {now.get(name)}" for name, then in checkpoint.versions.items() if now.get(name) != then
    }
    replayed = weights_sha256(folder) if folder.is_dir() else "no step was kept"
    return Replay(checkpoint.weights_sha256, replayed, changed)


def _settings_of(settings: Settings, checkpoint: Checkpoint, home: Path) -> Settings:
    """The settings that the checkpoint was trained with, and a home of its own."""
    then = checkpoint.settings
    return replace(
        settings,
        home=home,
        backend="embedded",
        learning_rate=then["learning_rate"],
        lora_rank=then["lora_rank"],
        gradient_tokens=then["row_tokens"],
        rows_per_step=then["rows_per_step"],
        clip_epsilon=then["clip_epsilon"],
        max_grad_norm=then["max_grad_norm"],
        max_kl=then["max_kl"],
        train_seed=then["seed"],
    )


def _copy_parent(again: Settings, checkpoint: Checkpoint, parent: Checkpoint) -> None:
    if parent.step == 0:
        return
    if not (Path(parent.path) / WEIGHTS).is_file() or not parent.path:
        raise PermanentError(
            f"the weights of the parent, step {parent.step} of {parent.chain}, are not kept any more; "
            "restore their folder from a backup to replay"
        )
    shutil.copytree(parent.path, backends.checkpoint_folder(again, checkpoint.chain, parent.step))
