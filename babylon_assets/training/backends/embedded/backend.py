"""The embedded backend: trains in this process, on the processor or on any CUDA device that torch sees."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.errors import SettingsError, TransientError
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.registry import open_environment
from babylon_assets.training.backend import (
    Attempt,
    Availability,
    Capabilities,
    TrainedCheckpoint,
    TrainingBackend,
    TrainingRequest,
)
from babylon_assets.training.backends.embedded.in_process import train_embedded
from babylon_assets.training.backends.embedded.manifest import trainer_settings
from babylon_assets.training.families import require_local
from babylon_assets.training.folders import train_in_folder


class Embedded(TrainingBackend):
    """Our own trainer behind ART's packing and loss; see `algorithm`."""

    name = "embedded"
    title = "the embedded backend"
    capabilities = Capabilities(recomputes_logprobs=True, reproduces=True)

    def availability(self, settings: Settings) -> Availability:
        """It can always train."""
        return Availability("this machine's processor trains")

    def require_base_model(self, base_model: str) -> None:
        """Qwen2, Qwen3 and Llama models."""
        require_local(base_model)

    def find_base_model(self, settings: Settings) -> str | None:
        """The environment's own small model, made by the first training."""
        try:
            environment = open_environment(settings)
        except TransientError:
            return _without_database(settings)
        folder = environment.find_base_model(settings.home)
        return str(folder) if folder else None

    def prepare_base_model(self, settings: Settings, progress: Any = None) -> str:
        """The environment's own small model; making it takes about a minute."""
        prepare_libraries(settings)
        try:
            environment = open_environment(settings)
        except TransientError:
            if (known := _without_database(settings)) is not None:
                return known
            raise
        folder = environment.make_base_model(settings.home, _open_policy, progress)
        if folder is None:
            raise SettingsError(
                f"the environment {environment.name} has no base model of its own; set BASE_MODEL to the folder or hub "
                "name of a model that reads its prompts"
            )
        return str(folder)

    def manifest_settings(self, settings: Settings, base_model: str) -> dict[str, Any]:
        """The fields of `TrainerSettings`."""
        return trainer_settings(settings, base_model)

    def versions(self) -> dict[str, str]:
        """ART's, torch's, transformers' and peft's."""
        return {name: version(name) for name in ("openpipe-art", "torch", "transformers", "peft")}

    def train(
        self, settings: Settings, request: TrainingRequest, attempt: Attempt | None = None
    ) -> TrainedCheckpoint | None:
        """Train in this process into a folder that appears whole."""
        with attempt.running() if attempt else nullcontext():
            return train_in_folder(settings, request, train_embedded)

    def restore_settings(self, settings: Settings, recorded: Mapping[str, Any]) -> Settings:
        """Checkpoints of before TRAIN_DTYPE were trained in fp32, those of before SURE_WEIGHT and
        PASSES_PER_WINDOW without a hold and in one pass."""
        return settings.replace(
            training_backend=self.name,
            learning_rate=recorded["learning_rate"],
            lora_rank=recorded["lora_rank"],
            gradient_tokens=recorded["row_tokens"],
            rows_per_step=recorded["rows_per_step"],
            clip_epsilon=recorded["clip_epsilon"],
            max_grad_norm=recorded["max_grad_norm"],
            max_kl=recorded["max_kl"],
            sure_weight=recorded.get("sure_weight", 0.0),
            passes_per_window=recorded.get("passes", 1),
            imitation_passes=recorded.get("imitation_passes", recorded.get("passes", 1)),
            train_seed=recorded["seed"],
            train_dtype=recorded.get("dtype", "float32"),
        )


def _without_database(settings: Settings) -> str | None:
    """The small model that was made here, while the database that says which game it holds does not answer.

    A game has no small model of its own, so that there is one only where the simulated market was played.
    """
    from babylon_assets.environments.simulated.environment import SimulatedEnvironment

    folder = SimulatedEnvironment(settings).find_base_model(settings.home)
    return str(folder) if folder else None


def _open_policy(folder: Path) -> Policy:
    from babylon_assets.serving.engine.engine import Engine

    return Engine(folder)
