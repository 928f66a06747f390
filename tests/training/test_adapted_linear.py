"""A layer and its adapter as one function give what peft's own layer gives; a model in bf16 trains with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear

from babylon_assets.training.adapted_linear import AdaptedLinear
from babylon_assets.training.adapters import TARGETS, load_trainable

CPU = torch.device("cpu")


def adapted_layers(model: Any) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, Linear) and "forward" in vars(layer)]


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    tokens = torch.arange(3, 51).view(2, 24)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=tokens).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return loss.detach(), list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("layers_again", [False, True])
def test_a_step_is_that_of_pefts_own_layers(tiny_base: Path, layers_again: bool) -> None:
    model = load_trainable(str(tiny_base), None, rank=4, seed=0, device=CPU, dtype="bfloat16").train(layers_again)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    layers = adapted_layers(model)
    assert len(layers) == len(TARGETS) * model.config.num_hidden_layers
    loss, gradients = loss_and_gradients(model)
    for layer in layers:
        del layer.forward
    of_peft, expected = loss_and_gradients(model)
    torch.testing.assert_close(loss, of_peft, rtol=0.005, atol=0)
    for gradient, like in zip(gradients, expected, strict=True):
        assert gradient.dtype == like.dtype == torch.float32
        assert float((gradient - like).norm() / like.norm()) < 0.05


def test_a_model_in_fp32_keeps_pefts_layers(tiny_base: Path) -> None:
    assert adapted_layers(load_trainable(str(tiny_base), None, rank=4, seed=0, device=CPU)) == []


def test_the_gradients_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = ((2, 3, 5), (6, 5), (6,), (2, 5), (6, 2))
    hidden, weight, bias, inner, outer = (torch.randn(shape, generator=generator).double() for shape in shapes)
    for tensor in (hidden, inner, outer):
        tensor.requires_grad_()
    direct = hidden @ weight.T + bias + 0.5 * (hidden @ inner.T @ outer.T)
    result: torch.Tensor = AdaptedLinear.apply(hidden, weight, bias, inner, outer, 0.5)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(result, direct)
    given = torch.randn(result.shape, generator=generator).double()
    ours = torch.autograd.grad(result, (hidden, inner, outer), given)
    for gradient, like in zip(ours, torch.autograd.grad(direct, (hidden, inner, outer), given), strict=True):
        torch.testing.assert_close(gradient.double(), like, rtol=1e-5, atol=1e-5)
