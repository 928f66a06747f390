"""Hyperparameters follow the model, the user's settings go first, and steps that say something of them are heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import RegistryUnavailable
from babylon_assets.training.backends.embedded.manifest import trainer_settings
from babylon_assets.training.capacity import choose_threads, cores
from babylon_assets.training.hyperparameters import suited_to
from babylon_assets.training.step_advice import advise, why_little_is_left

SETTINGS = {"learning_rate": 5e-4, "max_kl": 0.02}


def test_the_markets_own_model_is_trained_as_before(tiny_base: Path) -> None:
    assert trainer_settings(Settings(), str(tiny_base)) == {
        "learning_rate": 1.5e-3,
        "lora_rank": 32,
        "row_tokens": 1024,
        "rows_per_step": 3,
        "clip_epsilon": 0.2,
        "max_grad_norm": 0.2,
        "max_kl": 0.005,
        "sure_weight": 40.0,
        "seed": 0,
        "dtype": "float32",
    }


def test_a_larger_model_takes_smaller_steps_and_more_of_them() -> None:
    small, middle, large = (suited_to(f"somebody/model-{size}") for size in ("0.001B", "0.13B", "7B"))
    assert small.learning_rate > middle.learning_rate > large.learning_rate
    assert (middle.lora_rank, middle.rows_per_step, middle.max_kl) == (16, 3, 0.02)


def test_a_name_without_a_size_is_asked_of_the_hub_before_the_first_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for a small one, a model would begin with another rank than its second window has."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RegistryUnavailable, match="the config of the base model somebody/model-135M cannot be fetched"):
        trainer_settings(Settings(train_dtype="float32"), "somebody/model-135M")


def test_what_is_set_goes_first(tiny_base: Path) -> None:
    chosen = trainer_settings(Settings(learning_rate=1e-2, rows_per_step=7), str(tiny_base))
    assert (chosen["learning_rate"], chosen["rows_per_step"], chosen["lora_rank"]) == (1e-2, 7, 32)


def test_a_language_model_has_all_cores_and_a_small_one_is_repeated_bit_for_bit(tiny_base: Path) -> None:
    assert choose_threads(Settings(), str(tiny_base)) == 1
    assert choose_threads(Settings(), "somebody/model-0.5B") == cores() >= 1
    assert choose_threads(Settings(train_threads=3), "somebody/model-0.5B") == 3


def test_what_is_as_before_is_not_named(tiny_base: Path) -> None:
    before = trainer_settings(Settings(passes_per_window=1, sure_weight=0), str(tiny_base))
    assert not {"passes", "sure_weight"} & set(before)
    assert "imitation_passes" not in before
    twice = trainer_settings(Settings(passes_per_window=2, imitation_passes=2), str(tiny_base))
    assert (twice["passes"], "imitation_passes" in twice) == (2, False), "an imitation had as many passes before"
    assert trainer_settings(Settings(imitation_passes=3), str(tiny_base))["imitation_passes"] == 3


def steps(count: int, kl: float, undone: int = 0) -> list[dict[str, float]]:
    taken: list[dict[str, float]] = [{"tokens": 10.0, "kl_to_parent": kl} for _ in range(count)]
    for step in taken[count - undone :]:
        step["undone"] = 1.0
    return taken


@pytest.mark.parametrize(
    ("taken", "tokens", "advice"),
    [
        (steps(8, 0.004), 80, ""),
        (steps(2, 0.0001), 20, "hardly moved.*LEARNING_RATE higher than 0.0005.*ROWS_PER_STEP"),
        (steps(2, 0.01, undone=1), 60, "most of its tokens were not trained on.*LEARNING_RATE lower.*MAX_KL higher"),
        (steps(15, 0.01, undone=1), 160, ""),
        ([{"tokens": 5.0}], 0, ""),
    ],
    ids=["well", "hardly moves", "mostly undone", "one undone", "imitation"],
)
def test_steps_say_which_setting_to_change(taken: list[dict[str, Any]], tokens: int, advice: str) -> None:
    import re

    assert re.search(advice, advise(taken, SETTINGS, tokens)) if advice else advise(taken, SETTINGS, tokens) == ""


@pytest.mark.parametrize(
    ("advantages", "reward", "reference", "why"),
    [
        ([0.2], 0.4673, {"oracle": 0.4763, "expert": 0.44, "random": -0.01}, "reward is 0.4673 and the best.*0.4763"),
        ([0.2], 0.30, {"oracle": 0.4763, "expert": 0.44, "random": -0.01}, ""),
        ([0.004, -0.004], 0.30, None, "rewards that are compared differ by 0.004"),
        ([0.2, -0.2], 0.30, None, ""),
        ([], None, None, ""),
    ],
    ids=["near the best", "far from it", "no spread", "spread", "nothing is known"],
)
def test_where_little_is_left_to_learn_no_larger_steps_are_advised(
    advantages: list[float], reward: float | None, reference: dict[str, float] | None, why: str
) -> None:
    import re

    little = why_little_is_left(advantages, reward, reference)
    assert re.search(why, little) if why else little == ""
    said = advise(steps(2, 0.0001), SETTINGS, 20, little)
    assert said.startswith(little)
    assert ("the steps hardly moved the policy on the tokens that they saw, by 0.0001 nats a token" in said) is (
        not why
    )
    assert said.endswith("so its steps hardly moved the policy") is bool(why)
    assert ("LEARNING_RATE" in said) is (not why)
