"""The settings of the embedded trainer, as they are written into a checkpoint's manifest."""

from __future__ import annotations

from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.training.precision import train_dtype


def trainer_settings(settings: Settings, base_model: str) -> dict[str, Any]:
    """The fields of `trainer.TrainerSettings`."""
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
