"""A step's memory is estimated before it is taken, and does not grow with the number of answers."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from babylon_assets.domain.trajectories import Message
from babylon_assets.training.backends.embedded import trainer as embedded
from babylon_assets.training.backends.embedded.art_backend import _imitation_batch
from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.recorded_tokens import mixed_steps, tokenized_answer
from babylon_assets.training.selection import Selection
from babylon_assets.training.sequence_packing import compacted
from babylon_assets.training.step_memory import (
    STEP_BYTES,
    TOO_LARGE,
    activation_bytes,
    kept_tokens,
    leave_out_heavier,
)
from tests.training.test_selection import sample


def test_an_imitation_in_parts_is_the_same_step(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    answers = []
    for number in range(3):
        for length, weight in ((6, 0.5), (11, 2.0)):
            drawn = generator.choices(range(5, 100), k=length)
            answers.append((f"g{number}", tokenized_answer([5 + number] * 9, drawn, [math.nan] * length, weight)))
    [step] = mixed_steps(answers, 6)
    [rows] = _imitation_batch(step, 256, 1e-3).trajectory_tensors
    looks, steps, seen = [], [], []
    for most in (10_000, 30):
        monkeypatch.setattr(embedded, "kept_tokens", lambda *_, most=most: most)
        monkeypatch.setattr(embedded, "LEAST_TOKENS", 1)
        trainer = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4))
        looks.append(len(list(trainer._parts(compacted(rows)))))
        steps.append(trainer.imitation_step(rows))
        seen.append([parameter.detach().clone() for parameter in trainer._parameters])
    assert looks == [1, 3]
    assert steps[0]["tokens"] == 3 * (6 + 11)
    for name in ("loss", "grad_norm", "tokens", "entropy", "logprob_mean"):
        assert steps[0][name] == pytest.approx(steps[1][name], rel=1e-4), name
    for whole, summed in zip(*seen, strict=True):
        torch.testing.assert_close(whole, summed, rtol=1e-3, atol=1e-5)


def test_what_is_imitated_counts_by_its_weight_and_by_nothing_else(tiny_base: Path) -> None:
    """Packed side by side behind one prompt, answers have the loss that each has alone."""
    answers = [tokenized_answer([7] * 9, [20 + number, 40, 41], [math.nan] * 3, 1.0 + number) for number in range(3)]
    losses = []
    for step in (answers, *([answer] for answer in answers)):
        [ready] = mixed_steps([("g", answer) for answer in step], 6)
        [rows] = _imitation_batch(ready, 256, 1e-3).trajectory_tensors
        losses.append(Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4)).imitation_step(rows)["loss"])
    together, *alone = losses
    assert together == pytest.approx((alone[0] + 2 * alone[1] + 3 * alone[2]) / 6, rel=1e-4)


def test_a_larger_model_is_given_fewer_tokens_at_once(tiny_base: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "config.json").write_text('{"num_hidden_layers": 28, "hidden_size": 1536, "intermediate_size": 8960}')
    needed = activation_bytes(str(large))
    assert needed is not None
    assert needed * kept_tokens(str(large)) <= STEP_BYTES
    assert kept_tokens(str(large)) < kept_tokens(str(tiny_base))
    assert kept_tokens("nobody/knows-this") == 16_384


def test_a_model_in_bf16_keeps_more_activations(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (kept_tokens(str(tmp_path)), kept_tokens(str(tmp_path), "bfloat16")) == (258, 739)
    assert kept_tokens(str(tmp_path), "bfloat16", 2**29) == 369, "less memory is there"
    whole, again = (activation_bytes(str(tmp_path), again=again) or 0 for again in (False, True))
    assert whole == 30 * 4 * (28 * 576 + 12 * 1536) and again == 4 * (28 * 576 + 12 * 1536) + 30 * 4 * 576


def test_what_the_memory_does_not_suffice_for_is_left_out_and_counted(tiny_base: Path) -> None:
    needed = activation_bytes(str(tiny_base), again=True)
    assert needed is not None
    recorded = [sample(number, prompt_token_ids=[1] * length) for number, length in ((0, 90), (1, 200))]
    texts = [
        sample(number, trains_as="sft", token_ids=None, messages=[Message("user", "x" * n)])
        for number, n in ((2, 8), (3, 999))
    ]
    chosen = leave_out_heavier(Selection(recorded, texts, {}), str(tiny_base), 100 * needed, "float32")
    assert [one.sample_id for one in (*chosen.policy_gradient, *chosen.sft)] == ["t0/0/0", "t2/0/0"]
    assert chosen.left_out == {TOO_LARGE: 2}
    assert leave_out_heavier(Selection(recorded, [], {}), str(tiny_base), None, "float32") == Selection(
        recorded, [], {}
    )
