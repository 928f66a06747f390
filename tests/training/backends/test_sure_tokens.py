"""What a good answer was sure of is held; what was a choice, or a bad answer's, keeps the answer's advantage."""

from __future__ import annotations

import math

import torch

from babylon_assets.training.backends.embedded.sure_tokens import hold_sure_tokens


def test_sure_tokens_of_good_answers_are_held() -> None:
    rows = {
        "assistant_mask": torch.tensor([[False, True, True, True, True, True]]),
        "logprobs": torch.tensor([[0.0, math.log(0.99), math.log(0.5), -10.0, math.nan, math.log(0.99)]]),
        "advantages": torch.tensor([[2.0, 2.0, 2.0, 2.0, 2.0, -2.0]]),
    }
    held = hold_sure_tokens(rows, 40.0)
    assert held["advantages"].tolist() == [[2.0, 40.0, 2.0, 2.0, 2.0, -2.0]]
    assert rows["advantages"].tolist() == [[2.0, 2.0, 2.0, 2.0, 2.0, -2.0]]


def test_without_a_weight_nothing_is_changed() -> None:
    rows = {"advantages": torch.ones(1, 2)}
    assert hold_sure_tokens(rows, 0.0) is rows
