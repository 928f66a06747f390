"""The one interface that all backends have: what they are given to train, and what they give back.

A request is complete (samples, parent, manifest); the checkpoint that is made of it says what it was made from. A
backend knows nothing of the database, of windows or of Dagster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.training.selection import Selection


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Where a checkpoint stands: its step in its chain, and the folder of what it is trained from.

    Attributes:
        parent: the parent's folder, which is another chain's where a branch begins; None: the base model as it is.
    """

    step: int
    parent: Path | None


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One training: what to train on, from where, and what to write into the checkpoint.

    Attributes:
        base_model: folder or hub name of the base model.
        chain: name of the chain, which is ART's name of the model.
        samples: what is trained on; never empty.
        manifest: what the checkpoint is made from.
        place: where the checkpoint stands; None: after the newest one in the chain's folder, as ART has it.
    """

    base_model: str
    chain: str
    samples: Selection
    manifest: dict[str, Any]
    place: CheckpointPlace | None = None


@dataclass(frozen=True, slots=True)
class TrainedCheckpoint:
    """A checkpoint that a backend made.

    Attributes:
        path: where it lies: a folder, or the name of the hosted service's artifact.
        weights_sha256: of its weights; the service's own id for weights that lie with it.
        steps: the metrics of each optimizer step, `tokens` and `seconds` among them.
    """

    path: str
    weights_sha256: str
    steps: list[dict[str, float]]
