"""The local GPU backend: ART's own, with unsloth and vLLM, in a process of its own on this machine's GPU."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import MissingDependency
from babylon_assets.training.backend import (
    Attempt,
    Availability,
    Capabilities,
    TrainedCheckpoint,
    TrainingBackend,
    TrainingRequest,
)
from babylon_assets.training.backends.local_gpu.gpu_training import train_local_gpu, trainer_settings
from babylon_assets.training.devices import cuda_device, missing_for_art_backend
from babylon_assets.training.families import require_local
from babylon_assets.training.folders import train_in_folder

#: What a local GPU trains when BASE_MODEL is not set.
BASE_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


class LocalGpu(TrainingBackend):
    """ART's LocalBackend on a GPU."""

    name = "local_gpu"
    title = "the local GPU"
    capabilities = Capabilities(reads_texts=True)

    def availability(self, settings: Settings) -> Availability:
        """With a CUDA device and ART's extra `backend`."""
        device, missing = cuda_device(), missing_for_art_backend()
        if device is not None and not missing:
            return Availability(f"there is a {device.name} of {device.memory_gib:.0f} GiB and ART's GPU backend")
        lacks = ["a CUDA device"] if device is None else []
        refusal = MissingDependency(
            f"TRAINING_BACKEND is local_gpu and there is no {', no '.join([*lacks, *missing])}; type: pip install "
            "'babylon_assets[gpu]' on a machine with a GPU, in an environment of its own, or set it to embedded"
        )
        if device is None:
            return Availability("there is no CUDA device", refusal)
        return Availability(f"there is a {device.name}, and ART's GPU backend lacks {', '.join(missing)}", refusal)

    def require_base_model(self, base_model: str) -> None:
        """Qwen2, Qwen3 and Llama models."""
        require_local(base_model)

    def find_base_model(self, settings: Settings) -> str:
        """A small model of the hub."""
        return BASE_MODEL

    def manifest_settings(self, settings: Settings, base_model: str) -> dict[str, Any]:
        """What the process is given as `trainer`."""
        return trainer_settings(settings)

    def versions(self) -> dict[str, str]:
        """The embedded backend's, unsloth's and trl's."""
        return {name: version(name) for name in ("openpipe-art", "torch", "transformers", "peft", "unsloth", "trl")}

    def train(
        self, settings: Settings, request: TrainingRequest, attempt: Attempt | None = None
    ) -> TrainedCheckpoint | None:
        """Train in a process that ends with this one, into a folder that appears whole."""
        with attempt.running() if attempt else nullcontext():
            return train_in_folder(settings, request, train_local_gpu)
