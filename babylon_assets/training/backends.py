"""Which backend trains, why, and the one interface that all of them have.

A backend gets a request that is complete (samples, parent, settings, manifest) and makes a checkpoint that says what it
was made from. It knows nothing of the database, of windows or of Dagster. The embedded backend is started here; the
hosted one is in `serverless`.
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

from babylon_assets.core.errors import BaseModelRefused, MissingDependency, PermanentError, SettingsError
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.training.samples import Selection, demonstrations, trajectory_groups

logger = logging.getLogger(__name__)

BackendName = Literal["embedded", "serverless", "local_gpu"]

#: Base models that the hosted service trains; the first is what it trains when BASE_MODEL is not set.
SERVERLESS_BASE_MODELS = ("OpenPipe/Qwen3-14B-Instruct", "Qwen/Qwen3-30B-A3B-Instruct-2507")


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that trains, and the sentence that says why."""

    name: BackendName
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
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
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint that a backend made.

    Attributes:
        path: where it lies: a folder, or the name of the hosted service's artifact.
        weights_sha256: of its weights; the service's own id for weights that lie with it.
        steps: the metrics of each optimizer step, `tokens` and `seconds` among them.
    """

    path: str
    weights_sha256: str
    steps: list[dict[str, float]]


def choose_backend(settings: Settings) -> BackendChoice:
    """Decide where training runs: where TRAINING_BACKEND says, else on the hosted service when there is a key for it.

    Raises:
        PermanentError: the settings ask for a backend that this installation does not have, or that has no key.
        BaseModelRefused: the backend cannot train the base model; the message lists those that it can.
    """
    if settings.backend == "local_gpu":
        raise PermanentError(
            "TRAINING_BACKEND=local_gpu is not part of this installation; set it to embedded, or leave it out"
        )
    if settings.backend == "embedded":
        return BackendChoice("embedded", "TRAINING_BACKEND asks for it")
    if settings.wandb_api_key is None:
        if settings.backend == "serverless":
            raise SettingsError("TRAINING_BACKEND is serverless and there is no key; set WANDB_API_KEY to one of W&B")
        return BackendChoice("embedded", "it trains on this machine's processor, or on its GPU if torch sees one")
    _require_hosted(settings.base_model)
    asked = settings.backend == "serverless"
    return BackendChoice("serverless", "TRAINING_BACKEND asks for it" if asked else "WANDB_API_KEY is set")


def _require_hosted(base_model: str | None) -> None:
    if base_model is not None and base_model not in SERVERLESS_BASE_MODELS:
        known = ", ".join(SERVERLESS_BASE_MODELS)
        raise BaseModelRefused(
            f"the hosted service does not train {base_model}; set BASE_MODEL to one of {known}, "
            "or TRAINING_BACKEND=embedded to train it on this machine"
        )


def trainer_settings(settings: Settings, backend: BackendName = "embedded") -> dict[str, Any]:
    """The settings that decide what a checkpoint becomes, as they are written into its manifest."""
    if backend == "serverless":
        return {"learning_rate": settings.serverless_learning_rate, "clip_epsilon": settings.clip_epsilon}
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
    """Train on this machine; the checkpoint's folder, at the place that the request names, is the result.

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
    backend = EmbeddedBackend(art_path(settings), trainer, request.manifest, request.place)
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


def versions(backend: BackendName = "embedded") -> dict[str, str]:
    """Versions of what decides a checkpoint's numbers, for its manifest; the hosted service's own are not known."""
    from importlib.metadata import version

    here = ("openpipe-art",) if backend == "serverless" else ("openpipe-art", "torch", "transformers", "peft")
    return {name: version(name) for name in here}
