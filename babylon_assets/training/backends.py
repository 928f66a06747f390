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

from babylon_assets.core.errors import MissingDependency, SettingsError
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.training.devices import cuda_device, missing_for_art_backend
from babylon_assets.training.families import require_hosted, require_local
from babylon_assets.training.precision import train_dtype
from babylon_assets.training.samples import Selection, demonstrations, reward_groups

logger = logging.getLogger(__name__)

BackendName = Literal["embedded", "serverless", "local_gpu"]


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
    """Decide where training runs: where TRAINING_BACKEND says; else on the hosted service when there is a key for it,
    on a local GPU when there is one with ART's backend for it, or in this process.

    Raises:
        SettingsError, MissingDependency: the settings ask for a backend without a key, a GPU or its packages.
        BaseModelRefused: the backend cannot train the base model; the message lists those that it can.
    """
    choice = _asked_for(settings) if settings.backend != "auto" else _found(settings)
    if settings.base_model is not None:
        (require_hosted if choice.name == "serverless" else require_local)(settings.base_model)
    return choice


def _asked_for(settings: Settings) -> BackendChoice:
    reason = "TRAINING_BACKEND asks for it"
    if settings.backend == "serverless" and settings.wandb_api_key is None:
        raise SettingsError("TRAINING_BACKEND is serverless and there is no key; set WANDB_API_KEY to one of W&B")
    if settings.backend == "local_gpu":
        device, missing = cuda_device(), missing_for_art_backend()
        if device is None or missing:
            lacks = ["a CUDA device"] if device is None else []
            raise MissingDependency(
                f"TRAINING_BACKEND is local_gpu and there is no {', no '.join([*lacks, *missing])}; type: pip install "
                "'babylon_assets[gpu]' on a machine with a GPU, in an environment of its own, or set it to embedded"
            )
        return BackendChoice("local_gpu", reason)
    return BackendChoice("serverless" if settings.backend == "serverless" else "embedded", reason)


def _found(settings: Settings) -> BackendChoice:
    if settings.wandb_api_key is not None:
        return BackendChoice("serverless", "WANDB_API_KEY is set")
    device, missing = cuda_device(), missing_for_art_backend()
    if device is None:
        return BackendChoice("embedded", "there is no key of W&B and no CUDA device: this machine's processor trains")
    if missing:
        return BackendChoice("embedded", f"there is a {device.name}, and ART's GPU backend lacks {', '.join(missing)}")
    return BackendChoice("local_gpu", f"there is a {device.name} of {device.memory_gib:.0f} GiB and ART's GPU backend")


def is_hosted(settings: Settings) -> bool:
    """Whether the settings have the hosted service train; whether that can be is not looked at."""
    return settings.backend == "serverless" or (settings.backend == "auto" and settings.wandb_api_key is not None)


def trainer_settings(settings: Settings, base_model: str, backend: BackendName = "embedded") -> dict[str, Any]:
    """The settings that decide what a checkpoint becomes, as they are written into its manifest."""
    if backend == "serverless":
        return {"learning_rate": settings.serverless_learning_rate, "clip_epsilon": settings.clip_epsilon}
    if backend == "local_gpu":
        return {
            "learning_rate": settings.local_gpu_learning_rate,
            "lora_rank": settings.lora_rank,
            "row_tokens": settings.local_gpu_row_tokens,
            "clip_epsilon": settings.clip_epsilon,
            "max_grad_norm": settings.max_grad_norm,
            "seed": settings.train_seed,
        }
    return {
        "learning_rate": settings.learning_rate,
        "lora_rank": settings.lora_rank,
        "row_tokens": settings.gradient_tokens,
        "rows_per_step": settings.rows_per_step,
        "clip_epsilon": settings.clip_epsilon,
        "max_grad_norm": settings.max_grad_norm,
        "max_kl": settings.max_kl,
        "seed": settings.train_seed,
        "dtype": train_dtype(settings, base_model),
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
    trainer = TrainerSettings(**trainer_settings(settings, request.base_model))
    recorded, known = request.samples.policy_gradient, request.samples.baselines
    backend = EmbeddedBackend(art_path(settings), trainer, request.manifest, request.place, recorded, known)
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
        reward_groups(samples),
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

    here = ["openpipe-art"] if backend == "serverless" else ["openpipe-art", "torch", "transformers", "peft"]
    here += ["unsloth", "trl"] if backend == "local_gpu" else []
    return {name: version(name) for name in here}
