"""Which backend trains, why, and the one interface that all of them have.

A backend gets a request that is complete (samples, parent, settings, manifest) and leaves a checkpoint folder that
says what it was made from. It knows nothing of the database, of windows or of Dagster.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from babylon_assets.core.errors import MissingDependency, PermanentError
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.training.samples import Selection, demonstrations, trajectory_groups

logger = logging.getLogger(__name__)

BackendName = Literal["embedded", "serverless", "local_gpu"]


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that trains, and the sentence that says why."""

    name: BackendName
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One training: what to train on, from where, and what to write into the checkpoint.

    Attributes:
        base_model: folder or hub name of the base model.
        chain: name of the chain, which is ART's name of the model.
        samples: what is trained on; never empty.
        manifest: what the checkpoint is made from.
    """

    base_model: str
    chain: str
    samples: Selection
    manifest: dict[str, Any]


def choose_backend(settings: Settings) -> BackendChoice:
    """Decide where training runs.

    Raises:
        PermanentError: the settings ask for a backend that this installation does not have.
    """
    if settings.backend in ("serverless", "local_gpu"):
        raise PermanentError(
            f"TRAINING_BACKEND={settings.backend} is not part of this installation; set it to embedded, or leave it out"
        )
    if settings.backend == "embedded":
        return BackendChoice("embedded", "TRAINING_BACKEND asks for it")
    return BackendChoice("embedded", "it trains on this machine's processor, or on its GPU if torch sees one")


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a checkpoint becomes, as they are written into its manifest."""
    return {
        "learning_rate": settings.learning_rate,
        "lora_rank": settings.lora_rank,
        "row_tokens": settings.gradient_tokens,
        "rows_per_step": settings.rows_per_step,
        "clip_epsilon": settings.clip_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "max_kl": settings.max_kl,
        "seed": settings.train_seed,
    }


def art_path(settings: Settings) -> Path:
    """Folder under which ART keeps models and checkpoints."""
    return settings.home / "art"


def checkpoint_folder(settings: Settings, chain: str, step: int) -> Path:
    """Where checkpoint `step` of a chain lies, in ART's layout."""
    return art_path(settings) / settings.wandb_project / "models" / chain / "checkpoints" / f"{step:04d}"


def train_embedded(settings: Settings, request: TrainingRequest) -> None:
    """Train on this machine; the checkpoint folder that follows the chain's newest one is the result.

    Raises:
        MissingDependency: torch or ART is not installed.
    """
    prepare_libraries(settings)
    try:
        import torch

        from babylon_assets.training.embedded import EmbeddedBackend
        from babylon_assets.training.trainer import TrainerSettings
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{error.name} is not installed, without which nothing can be trained here; "
            "type: pip install 'babylon_assets[embedded]'"
        ) from error
    torch.set_num_threads(settings.threads)
    random.seed(settings.train_seed)  # ART shuffles groups and packed rows with the global generator
    torch.manual_seed(settings.train_seed)
    trainer = TrainerSettings(**trainer_settings(settings))
    backend = EmbeddedBackend(art_path(settings), trainer, request.manifest)
    with _quiet():
        asyncio.run(_train(backend, trainer, settings.wandb_project, request))


async def _train(backend: Any, trainer: Any, project: str, request: TrainingRequest) -> None:
    from art import TrainableModel
    from art.types import TrainSFTConfig

    from babylon_assets.training.embedded import IMITATION_BATCH, longest_row

    model: Any = TrainableModel(name=request.chain, project=project, base_model=request.base_model)
    await backend.register(model)
    if request.samples.method == "imitate":
        config = TrainSFTConfig(learning_rate=trainer.learning_rate, batch_size=IMITATION_BATCH)
        async for _ in backend._train_sft(model, demonstrations(request.samples.imitate), config, {}):
            pass
        return
    samples = request.samples.policy_gradient
    lengths = (len(sample.prompt_token_ids or []) + len(sample.token_ids or []) for sample in samples)
    await backend.train(
        model,
        trajectory_groups(samples),
        learning_rate=trainer.learning_rate,
        loss_fn="ppo",
        scale_rewards=False,
        epsilon=trainer.clip_epsilon,
        packed_sequence_length=longest_row(lengths, trainer.row_tokens),
    )


@contextlib.contextmanager
def _quiet() -> Any:
    """ART prints its progress; it goes to our log at debug level, where it is found and does not disturb."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        for line in filter(str.strip, said.getvalue().splitlines()):
            logger.debug("art: %s", line)


def versions() -> dict[str, str]:
    """Versions of what decides a checkpoint's numbers, for its manifest."""
    from importlib.metadata import version

    return {name: version(name) for name in ("openpipe-art", "torch", "transformers", "peft")}
