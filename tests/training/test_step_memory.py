"""A step's memory is estimated before it is taken, and does not grow with the number of answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from babylon_assets.domain.trajectories import Message
from babylon_assets.training.backends.embedded import trainer as embedded
from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.selection import Selection
from babylon_assets.training.step_memory import (
    LEAST_TOKENS,
    STEP_BYTES,
    activation_bytes,
    leave_out_heavier,
    step_tokens,
)
from tests.training.test_selection import sample


def test_an_imitation_in_parts_is_the_same_step(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(5, 100, (6, 40))
    labels = torch.full((6, 40), -100)
    for row in range(6):
        labels[row, 4 : 10 + 5 * row] = tokens[row, 4 : 10 + 5 * row]
    weights = torch.arange(6.0)
    seen, steps = [], []
    for most in (10_000, 70):
        monkeypatch.setattr(embedded, "step_tokens", lambda _, most=most: most)
        trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4))
        steps.append(trainer.imitation_step(tokens, labels, weights))
        seen.append([parameter.detach().clone() for parameter in trainer._parameters])
    parts = list(embedded._parts(labels != -100, 70))
    assert len(parts) > 2
    assert all((part.stop - part.start) * length <= 70 for part, length in parts)
    for name in ("loss", "grad_norm", "tokens", "entropy", "logprob_mean"):
        assert steps[0][name] == pytest.approx(steps[1][name], rel=1e-4), name
    for whole, summed in zip(*seen, strict=True):
        torch.testing.assert_close(whole, summed, rtol=1e-3, atol=1e-5)


def test_a_larger_model_is_given_fewer_tokens_at_once(tiny_base: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "config.json").write_text('{"num_hidden_layers": 28, "hidden_size": 1536, "intermediate_size": 8960}')
    needed = activation_bytes(str(large))
    assert needed is not None
    assert needed * step_tokens(str(large)) <= max(STEP_BYTES, needed * LEAST_TOKENS)
    assert step_tokens(str(large)) < step_tokens(str(tiny_base))
    assert step_tokens("nobody/knows-this") == 16_384


def test_what_the_memory_does_not_suffice_for_is_left_out_and_counted(tiny_base: Path) -> None:
    needed = activation_bytes(str(tiny_base))
    assert needed is not None
    recorded = [sample(number, prompt_token_ids=[1] * length) for number, length in ((0, 90), (1, 200))]
    texts = [
        sample(number, trains_as="sft", token_ids=None, messages=[Message("user", "x" * n)])
        for number, n in ((2, 8), (3, 999))
    ]
    chosen = leave_out_heavier(Selection(recorded, texts, {}), str(tiny_base), 100 * needed)
    assert [one.sample_id for one in (*chosen.policy_gradient, *chosen.sft)] == ["t0/0/0", "t2/0/0"]
    assert chosen.left_out == {"longer than the 100 tokens that the memory suffices for": 2}
    assert leave_out_heavier(Selection(recorded, [], {}), str(tiny_base), None) == Selection(recorded, [], {})
