"""How the embedded trainer steps where the settings do not say: it follows how many parameters the base model has.

What was measured for each row of `TABLE`:

- of less than 20 million parameters: the market's own model of half a million comes a median 0.95 of the way to the
  oracle in 24 windows of 512 answers (five seeds on two days, worst 0.90; 0.87 and 0.82 without a hold);
- from 20 million: SmolLM2-135M; docs/training.md says what was seen and what was not. Steps of one row, of two decision
  points each, followed chance;
- from a billion: nothing; a larger model takes smaller steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.training.capacity import known_parameters
from babylon_assets.training.precision import parameters_of


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What suits a base model.

    Attributes:
        rows_per_step: packed rows that a step averages over; fewer of them are more steps a window.
        max_kl: in nats a token; how far one window may move the policy.
        sure_weight: how strongly tokens that the policy was sure of are held, as of `sure_tokens`.
        passes: how often a policy gradient goes through a window's rows, within the bound of `max_kl`.
        imitation_passes: how often an imitation goes through a window's answers.
    """

    learning_rate: float
    lora_rank: int
    rows_per_step: int
    max_kl: float
    sure_weight: float = 0.0
    passes: int = 1
    imitation_passes: int = 1


#: Fewest parameters -> what suits such a model, largest first.
TABLE: tuple[tuple[int, Hyperparameters], ...] = (
    (1_000_000_000, Hyperparameters(learning_rate=1e-4, lora_rank=16, rows_per_step=1, max_kl=0.02)),
    (
        20_000_000,
        Hyperparameters(
            learning_rate=5e-4,
            lora_rank=16,
            rows_per_step=3,
            max_kl=0.02,
            sure_weight=40.0,
            passes=2,
            imitation_passes=3,
        ),
    ),
    (0, Hyperparameters(learning_rate=1.5e-3, lora_rank=32, rows_per_step=3, max_kl=0.005, sure_weight=40.0)),
)


def suited_to(base_model: str) -> Hyperparameters:
    """What suits a base model: by its config, or by the size in its name where that is not on this machine.

    The config of a hub name that tells no size is fetched, and what that raises is raised; see `parameters_of`.
    """
    parameters = known_parameters(base_model) or parameters_of(base_model)
    return next(suited for fewest, suited in TABLE if parameters >= fewest)


def chosen(settings: Settings, base_model: str) -> dict[str, Any]:
    """The fields of `Hyperparameters`, each as the settings have it, or as it suits the model."""
    suited = suited_to(base_model)
    return {
        name: getattr(suited, name) if (value := getattr(settings.embedded, name)) is None else value
        for name in Hyperparameters.__dataclass_fields__
    }
