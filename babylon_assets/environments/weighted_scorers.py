"""Which scorers have a weight, and whether each of them is there, said before a window is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from babylon_assets.domain import feedback_scores, llm_judge, rewards
from babylon_assets.domain.scorers import load_scorers
from babylon_assets.environments.base import Environment
from babylon_assets.environments.registry import open_environment

if TYPE_CHECKING:
    from babylon_assets.config.settings import Settings


def choose_weights(settings: Settings, environment: Environment) -> Mapping[str, float]:
    """The weight of each scorer, as REWARD_WEIGHTS has it.

    Where nobody set it, the default goes without the scorers that the environment does not have.

    Raises:
        SettingsError: one of the user's scorers cannot be loaded.
    """
    weights = settings.rewards.weights
    if not settings.rewards.weights_are_default:
        return weights
    known = _known_scorers(settings, environment)
    return {name: weight for name, weight in weights.items() if name in known}


def check_weights(settings: Settings) -> str:
    """The scorers that have a weight, for a person.

    Raises:
        SettingsError: a weight names no scorer, or one of the user's cannot be loaded.
        SettingsError, TransientError: as of `open_environment`.
    """
    environment = open_environment(settings)
    weights = choose_weights(settings, environment)
    rewards.refuse_unknown(weights, _known_scorers(settings, environment))
    text = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    left_out = [name for name in settings.rewards.weights if name not in weights]
    return f"{text}; {environment.name} has no {', '.join(left_out)}, set REWARD_WEIGHTS for more" if left_out else text


def _known_scorers(settings: Settings, environment: Environment) -> list[str]:
    own = load_scorers(settings.rewards.scorers, reserved=[*environment.scorers, *environment.detail])
    judge = [] if settings.judge.model is None else [llm_judge.NAME]
    return [*rewards.SCORERS, *environment.scorers, *own, feedback_scores.NAME, *judge]
