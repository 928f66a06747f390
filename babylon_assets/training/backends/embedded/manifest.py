"""The settings of the embedded trainer, as they are written into a checkpoint's manifest."""

from __future__ import annotations

from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.training.hyperparameters import chosen
from babylon_assets.training.precision import train_dtype


def trainer_settings(settings: Settings, base_model: str) -> dict[str, Any]:
    """The fields of `trainer.TrainerSettings`; without a hold there is no word of it, as before there was one."""
    suited = chosen(settings, base_model)
    if not suited["sure_weight"]:
        del suited["sure_weight"]
    return {
        **suited,
        "row_tokens": settings.embedded.gradient_tokens,
        "clip_epsilon": settings.embedded.clip_epsilon,
        "max_grad_norm": settings.embedded.max_grad_norm,
        "seed": settings.training.seed,
        "dtype": train_dtype(settings, base_model),
    }
