"""Attention over short packed rows, written out, for models that compute in bf16 on a processor.

torch's kernel for a processor takes three times as long there for a step of rows of 96 tokens, nearly all of it in the
backward pass, and is as fast for rows of 800. Scores and shares are fp32, as they are in the engine that sampled.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "babylon_short_rows"
#: Longer rows are left to torch's kernel, which needs no memory for their scores.
LONGEST = 256


class ShortAttention(torch.autograd.Function):
    """softmax(scale * query @ key.T) @ value where the mask allows, with gradients for query, key and value."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """What each position sees: [rows, heads, length, size], in the query's numbers.

        Args:
            query: [rows, heads, length, size]; key, value: [rows, key-value heads, length, size].
            mask: boolean [rows, 1, length, length]; each position may look at one at least.
        """
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        with torch.autocast(query.device.type, enabled=False):
            seen = _shares(_grouped(query, key), key.float(), mask, scale) @ value.float()
        return seen.view(query.shape).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """The gradients of what `forward` takes; the shares are computed again."""
        query, key, value, mask = ctx.saved_tensors
        grouped, keys = _grouped(query, key), key.float()
        shares, given = _shares(grouped, keys, mask, ctx.scale), _grouped(gradient, key)
        of_value = shares.transpose(2, 3) @ given
        of_shares = given @ value.float().transpose(2, 3)
        of_scores = of_shares.sub_(torch.linalg.vecdot(of_shares, shares)[..., None]).mul_(shares).mul_(ctx.scale)
        of_query = (of_scores @ keys).view(query.shape)
        of_key = of_scores.transpose(2, 3) @ grouped
        return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _grouped(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Heads that share a key side by side: [rows, key-value heads, heads of each * length, size] in fp32."""
    return query.float().reshape(*key.shape[:2], -1, key.shape[3])


def _shares(grouped: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """How much each query takes of each position: [rows, key-value heads, heads of each * length, length]."""
    scores = (grouped * scale) @ keys.transpose(2, 3)
    by_head = scores.view(*keys.shape[:2], -1, mask.shape[2], mask.shape[3])
    by_head.masked_fill_(~mask[:, :, None], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def attend_short_rows(model: Any) -> None:
    """Let a transformers model attend so where its rows are short and it has their mask."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The form of transformers' attention: [rows, length, heads, size], and no weights."""
    if mask is None or query.shape[2] > LONGEST:
        seen: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, scaling=scaling, **others
        )
        return seen
    result: torch.Tensor = ShortAttention.apply(query, key, value, mask, scaling)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2).contiguous(), None
