"""One step at a time: what a step does to the weights, and that an undone step leaves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.sequence_packing import compacted

PPO: Any = {"ppo": True, "epsilon": 0.2}


def rows() -> dict[str, torch.Tensor]:
    """One packed row: a prompt of four tokens and two answers of three, the first rewarded, the second not."""
    answers = [[9, 10, 11], [12, 13, 14]]
    tokens = [5, 6, 7, 8, *answers[0], *answers[1]]
    trained = [False] * 4 + [True] * 6
    columns: dict[str, list[Any]] = {
        "tokens": tokens,
        "group_ids": [1] * 4 + [2] * 3 + [3] * 3,
        "parent_ids": [1] * 10,
        "input_pos": [0, 1, 2, 3, 4, 5, 6, 4, 5, 6],
        "assistant_mask": trained,
        "logprobs": [float("nan")] * 4 + [-6.0] * 6,
        "advantages": [0.0] * 4 + [1.0] * 3 + [-1.0] * 3,
        "weights": [0.0] * 4 + [1.0] * 6,
    }
    return {name: torch.tensor([values]) for name, values in columns.items()}


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer._parameters]


def test_an_undone_step_leaves_weights_and_optimizer_as_they_were(tiny_base: Path) -> None:
    trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, max_kl=100.0))
    assert trainer.policy_gradient_step(rows(), PPO) is not None
    kept, momentum = weights(trainer), trainer._state()[1]["state"][0]["exp_avg"]
    assert trainer.policy_gradient_step(rows(), PPO) is not None
    assert any(not torch.equal(now, before) for now, before in zip(weights(trainer), kept, strict=True))
    trainer._first_kl, trainer._settings = 0.0, replace(trainer._settings, max_kl=1e-12)
    assert trainer.undo_if_too_far(rows(), PPO)
    assert all(torch.equal(now, before) for now, before in zip(weights(trainer), kept, strict=True))
    assert torch.equal(trainer._state()[1]["state"][0]["exp_avg"], momentum)
    assert trainer.has_learned


def test_a_step_within_the_bound_is_kept(tiny_base: Path) -> None:
    trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, max_kl=100.0))
    metrics = trainer.policy_gradient_step(rows(), PPO)
    assert metrics is not None
    assert metrics["tokens"] == 6
    assert not trainer.undo_if_too_far(rows(), PPO)


def test_gradients_are_clipped(tiny_base: Path) -> None:
    trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, max_kl=100.0, max_grad_norm=1e-6))
    metrics = trainer.policy_gradient_step(rows(), PPO)
    assert metrics is not None
    assert metrics["grad_norm"] > 1e-6
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in trainer._parameters if p.grad is not None]))
    assert float(norm) == pytest.approx(1e-6, rel=1e-2)


def test_answers_of_an_older_policy_do_not_count_as_having_gone_too_far(tiny_base: Path) -> None:
    trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, learning_rate=1e-5, max_kl=0.01))
    first = trainer.policy_gradient_step(rows(), PPO)
    assert first is not None
    assert first["kl_to_behaviour"] > 0.01
    assert trainer.policy_gradient_step(rows(), PPO) is not None
    assert trainer.has_learned


def test_each_step_says_how_far_it_is_from_the_parent_whatever_was_recorded(tiny_base: Path) -> None:
    ways = []
    for rate in (1e-12, 5e-3):
        trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, learning_rate=rate, max_kl=100.0))
        steps = [trainer.policy_gradient_step(rows(), PPO) for _ in range(3)]
        ways.append([step["kl_to_parent"] for step in steps if step is not None])
    assert ways[0] == pytest.approx([0, 0, 0], abs=1e-7)
    assert 1e-6 < ways[1][0] < ways[1][1] < ways[1][2]
    assert ways[1][2] < trainer._steps[-1]["kl_to_behaviour"]  # the recorded ones are of no policy at all


def test_a_first_step_that_goes_too_far_is_tried_again_smaller(tiny_base: Path) -> None:
    settings = TrainerSettings(lora_rank=4, learning_rate=0.02, max_kl=1e-3, max_grad_norm=1000.0)
    trainer = Trainer(str(tiny_base), None, settings)
    trainer.policy_gradient_step(rows(), PPO)
    assert trainer.undo_if_too_far(rows(), PPO)
    assert not trainer.has_learned
    tries = 0
    while trainer.retry_smaller(rows(), PPO) is None:
        tries += 1
        assert tries < 20
    assert trainer.has_learned
    assert not trainer.undo_if_too_far(rows(), PPO)


def test_rows_that_the_memory_does_not_hold_together_are_one_step_all_the_same(tiny_base: Path) -> None:
    several = {name: torch.cat([tensor, tensor.flip(0), tensor]) for name, tensor in rows().items()}
    several["tokens"][1, 4:] += 20
    several["advantages"][2] *= 3
    taken = []
    length = compacted(several)["tokens"].shape[1]
    for tokens, kept, expected in ((10**6, 10**6, 0), (10, 1, 2), (10, length, 0)):
        trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, max_kl=100.0))
        trainer._step_tokens, trainer._kept_tokens = tokens, kept
        looks = len(list(trainer._looks(several, PPO)))
        metrics = trainer.policy_gradient_step(several, PPO)
        assert metrics is not None
        again = [layer.training for layer in trainer._model.get_base_model().model.layers]
        assert again == [number < expected for number in range(2)], "activations are kept where the memory holds them"
        taken.append((looks, metrics, weights(trainer)))
    (_, whole, together), *others = taken
    untimed = [name for name in whole if name not in ("seconds", "probs_correlation")]
    for looks, in_parts, apart in others:
        assert looks == 3
        assert [in_parts[name] for name in untimed] == pytest.approx([whole[name] for name in untimed], rel=1e-4)
        for one, other in zip(together, apart, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(others[0][2], others[1][2], strict=True))
