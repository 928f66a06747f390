"""The settings of the embedded trainer, as they are written into a checkpoint's manifest."""

from __future__ import annotations

from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.training.hyperparameters import chosen
from babylon_assets.training.precision import train_dtype

#: What trained before there was a setting for it, which no manifest names.
_AS_BEFORE = {"sure_weight": 0, "passes": 1}


def trainer_settings(settings: Settings, base_model: str) -> dict[str, Any]:
    """The fields of `trainer.TrainerSettings`; no word of what is as it was before there was a setting."""
    suited = chosen(settings, base_model)
    before = {**_AS_BEFORE, "imitation_passes": suited["passes"]}
    return {
        **{name: value for name, value in suited.items() if value != before.get(name)},
        "row_tokens": settings.embedded.gradient_tokens,
        "clip_epsilon": settings.embedded.clip_epsilon,
        "max_grad_norm": settings.embedded.max_grad_norm,
        "seed": settings.training.seed,
        "dtype": train_dtype(settings, base_model),
    }
