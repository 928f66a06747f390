"""Attention over short rows gives what torch's own gives; a model in bf16 attends so, and one in fp32 does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from babylon_assets.training import short_attention
from babylon_assets.training.adapters import load_trainable
from babylon_assets.training.logprobs import packed_attention_mask, token_logprobs
from babylon_assets.training.short_attention import NAME, ShortAttention

CPU = torch.device("cpu")
ROWS, HEADS, KEY_HEADS, LENGTH, SIZE = 2, 6, 2, 7, 4
#: A prompt of three tokens with two answers; and one with an answer and a token of padding.
GROUPS = torch.tensor([[1, 1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 2, 2, -1]])
PARENTS = torch.tensor([[1] * 7, [1] * 6 + [-1]])


def test_what_is_seen_and_its_gradients_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = [(ROWS, heads, LENGTH, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    query, key, value = given = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    mask = packed_attention_mask(GROUPS, PARENTS)
    of_seen = torch.randn(ROWS, HEADS, LENGTH, SIZE, generator=generator)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)
    seen = ShortAttention.apply(query, key, value, mask, 0.3)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(seen, expected)
    like = torch.autograd.grad(expected, given, of_seen)
    for gradient, other in zip(torch.autograd.grad(seen, given, of_seen), like, strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("layers_again", [False, True])
def test_a_step_in_bf16_is_that_of_torchs_attention(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, layers_again: bool
) -> None:
    model = load_trainable(str(tiny_base), None, rank=4, seed=0, device=CPU, dtype="bfloat16").train(layers_again)
    assert model.config._attn_implementation == NAME
    ours, gradients = _step(model)
    monkeypatch.setattr(short_attention, "LONGEST", LENGTH - 1)
    of_torch, expected = _step(model)
    torch.testing.assert_close(ours, of_torch, rtol=0.01, atol=0)
    assert gradients
    assert not all(torch.equal(gradient, like) for gradient, like in zip(gradients, expected, strict=True))
    for gradient, like in zip(gradients, expected, strict=True):
        assert float((gradient - like).norm()) <= 0.05 * float(like.norm())


def _step(model: torch.nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tokens = torch.arange(5, 5 + ROWS * LENGTH).view(ROWS, LENGTH)
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4], [0, 1, 2, 3, 4, 5, 0]])
    chosen = (GROUPS != -1) & (GROUPS != PARENTS)
    with torch.autocast("cpu", torch.bfloat16):
        mask = packed_attention_mask(GROUPS, PARENTS)
        logprobs, _ = token_logprobs(model, tokens, mask, positions, chosen)
    return logprobs.detach().sum(), list(torch.autograd.grad(logprobs.sum(), parameters))


def test_a_model_in_fp32_attends_as_torch_does(tiny_base: Path) -> None:
    model = load_trainable(str(tiny_base), None, rank=4, seed=0, device=CPU)
    assert model.config._attn_implementation == "sdpa"
