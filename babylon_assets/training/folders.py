"""Checkpoint folders on this machine: where they lie, and what a killed run left there is taken up or removed.

A checkpoint folder appears whole, with the manifest of what it was made from (`adapters`): that is what makes a
training that ends in a folder resumable.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.training.adapters import WEIGHTS, read_manifest, read_steps, weights_sha256
from babylon_assets.training.backend import CheckpointPlace, TrainedCheckpoint, TrainingRequest

#: Marks a folder that the ledger does not know while it is removed.
UNKNOWN = "unknown"


def art_path(settings: Settings) -> Path:
    """Folder under which ART keeps models and checkpoints."""
    return settings.home / "art"


def checkpoint_folder(settings: Settings, chain: str, step: int) -> Path:
    """Where checkpoint `step` of a chain lies, in ART's layout."""
    return art_path(settings) / settings.training.wandb_project / "models" / chain / "checkpoints" / f"{step:04d}"


def is_checkpoint_folder(settings: Settings, folder: Path, chain: str, step: int) -> bool:
    """Whether a folder may be this checkpoint's: below the home, links followed, and below a folder of its chain, with
    the name of its step; and where ART keeps checkpoints, at the place of this very one.
    """
    home, art, place = (path.resolve() for path in (settings.home, art_path(settings), folder))
    name = f"{step:04d}"
    if place.is_relative_to(art):
        return place.relative_to(art).parts[1:] == ("models", chain, "checkpoints", name)
    return place.is_relative_to(home) and chain in place.relative_to(home).parts[:-1] and place.name == name


def train_in_folder(
    settings: Settings, request: TrainingRequest, train: Callable[[Settings, TrainingRequest], None]
) -> TrainedCheckpoint | None:
    """Train the checkpoint at the place that the request names, or take up the one that a killed run left.

    Args:
        train: writes the checkpoint's folder, whole and with the request's manifest, or no folder.

    Returns:
        The checkpoint; None when no step was kept.

    Raises:
        CorruptLedger: the parent's own folder is gone.
    """
    assert request.place is not None
    _require_parent(request.place)
    folder = checkpoint_folder(settings, request.chain, request.place.step)
    if not _take_up(request, request.place.step, folder):
        train(settings, request)
    if read_manifest(folder) != request.manifest:
        remove_folder(folder, UNKNOWN)
        return None
    return TrainedCheckpoint(str(folder), weights_sha256(folder), read_steps(folder))


def _require_parent(place: CheckpointPlace) -> None:
    if place.parent is not None and not (place.parent / WEIGHTS).is_file():
        raise CorruptLedger(
            f"the parent of step {place.step} is in the ledger but its weights are not in {place.parent}; "
            "restore that folder from a backup, or set BABYLON_MODEL to a new name to begin a new chain"
        )


def _take_up(request: TrainingRequest, step: int, folder: Path) -> bool:
    """Whether a killed run left exactly the checkpoint that is to be made; anything else there or after is removed."""
    manifest: dict[str, Any] | None = read_manifest(folder)
    if manifest == request.manifest:
        return True
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other.name.isdecimal() and int(other.name) >= step:
                remove_folder(other, UNKNOWN)
    return False


def remove_folder(folder: Path, mark: str) -> None:
    """Remove a checkpoint folder, by a rename to `.<mark>-<name>` first so that it is never half there."""
    if folder.is_dir():
        aside = folder.with_name(f".{mark}-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)
