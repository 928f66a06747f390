"""Whether every scorer that has a weight is there, said before a window is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from babylon_assets.domain import feedback_scores, llm_judge, rewards
from babylon_assets.domain.scorers import load_scorers
from babylon_assets.environments.registry import open_environment

if TYPE_CHECKING:
    from babylon_assets.config.settings import Settings


def check_weights(settings: Settings) -> str:
    """The scorers that have a weight, for a person.

    Raises:
        SettingsError: a weight names no scorer, or one of the user's cannot be loaded.
        SettingsError, TransientError: as of `open_environment`.
    """
    environment = open_environment(settings)
    own = load_scorers(settings.rewards.scorers, reserved=[*environment.scorers, *environment.detail])
    judge = [] if settings.judge.model is None else [llm_judge.NAME]
    weights = settings.rewards.weights
    rewards.refuse_unknown(weights, [*rewards.SCORERS, *environment.scorers, *own, feedback_scores.NAME, *judge])
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
