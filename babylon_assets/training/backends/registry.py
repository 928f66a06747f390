"""Which backend trains, why, with which settings, and where its checkpoints lie.

What a backend is given and gives is in `interface`. Each is started in a module of its own: the embedded one in
`in_process`, ART's on a GPU in `local_gpu`, the hosted one in `serverless`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import MissingDependency, SettingsError
from babylon_assets.training.devices import cuda_device, missing_for_art_backend
from babylon_assets.training.families import require_hosted, require_local
from babylon_assets.training.precision import train_dtype

BackendName = Literal["embedded", "serverless", "local_gpu"]


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that trains, and the sentence that says why."""

    name: BackendName
    reason: str


def choose_backend(settings: Settings) -> BackendChoice:
    """Decide where training runs: where TRAINING_BACKEND says; else on the hosted service when there is a key for it,
    on a local GPU when there is one with ART's backend for it, or in this process.

    Raises:
        SettingsError, MissingDependency: the settings ask for a backend without a key, a GPU or its packages.
        BaseModelRefused: the backend cannot train the base model; the message lists those that it can.
    """
    choice = _require_backend(settings) if settings.training.backend != "auto" else _choose_available(settings)
    if settings.training.base_model is not None:
        (require_hosted if choice.name == "serverless" else require_local)(settings.training.base_model)
    return choice


def _require_backend(settings: Settings) -> BackendChoice:
    reason = "TRAINING_BACKEND asks for it"
    if settings.training.backend == "serverless" and settings.training.wandb_api_key is None:
        raise SettingsError("TRAINING_BACKEND is serverless and there is no key; set WANDB_API_KEY to one of W&B")
    if settings.training.backend == "local_gpu":
        device, missing = cuda_device(), missing_for_art_backend()
        if device is None or missing:
            lacks = ["a CUDA device"] if device is None else []
            raise MissingDependency(
                f"TRAINING_BACKEND is local_gpu and there is no {', no '.join([*lacks, *missing])}; type: pip install "
                "'babylon_assets[gpu]' on a machine with a GPU, in an environment of its own, or set it to embedded"
            )
        return BackendChoice("local_gpu", reason)
    return BackendChoice("serverless" if settings.training.backend == "serverless" else "embedded", reason)


def _choose_available(settings: Settings) -> BackendChoice:
    if settings.training.wandb_api_key is not None:
        return BackendChoice("serverless", "WANDB_API_KEY is set")
    device, missing = cuda_device(), missing_for_art_backend()
    if device is None:
        return BackendChoice("embedded", "there is no key of W&B and no CUDA device: this machine's processor trains")
    if missing:
        return BackendChoice("embedded", f"there is a {device.name}, and ART's GPU backend lacks {', '.join(missing)}")
    return BackendChoice("local_gpu", f"there is a {device.name} of {device.memory_gib:.0f} GiB and ART's GPU backend")


def is_hosted(settings: Settings) -> bool:
    """Whether the settings have the hosted service train; whether that can be is not looked at."""
    return settings.training.backend == "serverless" or (
        settings.training.backend == "auto" and settings.training.wandb_api_key is not None
    )


def trainer_settings(settings: Settings, base_model: str, backend: BackendName = "embedded") -> dict[str, Any]:
    """The settings that decide what a checkpoint becomes, as they are written into its manifest."""
    if backend == "serverless":
        return {"learning_rate": settings.serverless.learning_rate, "clip_epsilon": settings.embedded.clip_epsilon}
    if backend == "local_gpu":
        return {
            "learning_rate": settings.local_gpu.learning_rate,
            "lora_rank": settings.embedded.lora_rank,
            "row_tokens": settings.local_gpu.row_tokens,
            "clip_epsilon": settings.embedded.clip_epsilon,
            "max_grad_norm": settings.embedded.max_grad_norm,
            "seed": settings.training.seed,
        }
    return {
        "learning_rate": settings.embedded.learning_rate,
        "lora_rank": settings.embedded.lora_rank,
        "row_tokens": settings.embedded.gradient_tokens,
        "rows_per_step": settings.embedded.rows_per_step,
        "clip_epsilon": settings.embedded.clip_epsilon,
        "max_grad_norm": settings.embedded.max_grad_norm,
        "max_kl": settings.embedded.max_kl,
        "seed": settings.training.seed,
        "dtype": train_dtype(settings, base_model),
    }


def art_path(settings: Settings) -> Path:
    """Folder under which ART keeps models and checkpoints."""
    return settings.home / "art"


def checkpoint_folder(settings: Settings, chain: str, step: int) -> Path:
    """Where checkpoint `step` of a chain lies, in ART's layout."""
    return art_path(settings) / settings.training.wandb_project / "models" / chain / "checkpoints" / f"{step:04d}"


def versions(backend: BackendName = "embedded") -> dict[str, str]:
    """Versions of what decides a checkpoint's numbers, for its manifest; the hosted service's own are not known."""
    from importlib.metadata import version

    here = ["openpipe-art"] if backend == "serverless" else ["openpipe-art", "torch", "transformers", "peft"]
    here += ["unsloth", "trl"] if backend == "local_gpu" else []
    return {name: version(name) for name in here}
