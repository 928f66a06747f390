"""The forward pass of the engine: Qwen2, Qwen3 and Llama models over a key-value cache with a row per answer.

Written out instead of taken from transformers for two reasons. A small model's step is mostly overhead, of which this
has a third. And what a row gets depends neither on its neighbours nor on how much of its prompt was read before, bit
for bit in fp32 on one CPU thread: matrix products have at least sixteen rows, because the kernels for few sum in
another order, what is attended to is padded to whole blocks with exact zeros, and sums over positions go in pieces of
fixed size.
Which rows there are, and what is sampled, is decided in `batching`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from babylon_assets.config.heap import trim_heap
from babylon_assets.serving.engine.model_weights import Layer, LowRank, Weights

if TYPE_CHECKING:
    import torch

#: Fewest rows of a matrix product, and what their number is rounded up to: with fewer, a CPU may sum in another order.
ROWS = 16
#: Positions that are attended to are rounded up to this.
BLOCK = 64
#: How many rows a cache has that needs fewer than `ROWS`; beyond, their number is a multiple of that.
FEW_ROWS = (1, 2, 4, 8)
#: Most positions that one matrix product sums over, and the size of the mask that is made once.
SUMMED, TRIANGLE = 256, 1024

Attend = Callable[[int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def rounded(count: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-count // to) * to


class Cache:
    """Keys and values of every row: per layer [rows, key-value heads, positions, head]; grows, never shrinks."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.rows = self._length = 0

    def fit(self, rows: int, length: int) -> None:
        """Make room for so many rows and positions; what is there stays."""
        rows, length = self._grown(rows, length)
        if (rows, length) == (self.rows, self._length):
            return
        for tensors in (self.keys, self.values):
            self._grow(tensors, rows, length)
        self.rows, self._length = rows, length
        trim_heap()  # of the smaller layers, whose places are too small for the larger ones

    def bytes_with(self, rows: int, length: int) -> int:
        """What it would take in memory with room for so many rows and positions."""
        weights, (rows, length) = self._weights, self._grown(rows, length)
        numbers = 2 * len(weights.layers) * weights.key_heads * weights.head
        return rows * length * numbers * weights.embedding.element_size()

    def _grown(self, rows: int, length: int) -> tuple[int, int]:
        if rows > self.rows:
            rows = next((few for few in FEW_ROWS if rows <= few), rounded(rows, ROWS))
        if length > self._length:
            wanted = rounded(max(length, self._length * 9 // 8), 2 * BLOCK)
            length = min(wanted, rounded(self._weights.context, BLOCK))
        return max(rows, self.rows), max(length, self._length)

    def _grow(self, tensors: list[torch.Tensor], rows: int, length: int) -> None:
        """Layer by layer: of 500 MB that have to become 1,000, no more than a layer is there twice."""
        for number in range(len(self._weights.layers)):
            new = self._weights.embedding.new_zeros(rows, self._weights.key_heads, length, self._weights.head)
            if number < len(tensors):
                new[: self.rows, :, : self._length] = tensors[number]
                tensors[number] = new
            else:
                tensors.append(new)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of a prompt that are read into a row of the cache, after `start` ones that are there or in another row.

    Attributes:
        source: the row that has the first `start` positions; None or the row itself: they are where they belong.
    """

    row: int
    start: int
    tokens: Sequence[int]
    source: int | None = None


def prefill(weights: Weights, cache: Cache, segments: Sequence[Segment]) -> torch.Tensor:
    """Read segments into the cache, which must fit them; one may build on what another before it reads.

    Returns:
        Logits [segments, vocabulary] of the token after each segment.
    """
    import torch
    from torch.nn.functional import linear, rms_norm

    device = weights.embedding.device
    ends = list(accumulate(len(segment.tokens) for segment in segments))
    padding = [0] * (ROWS - ends[-1])
    tokens = torch.tensor([token for segment in segments for token in segment.tokens] + padding, device=device)
    places = [torch.arange(segment.start, segment.start + len(segment.tokens), device=device) for segment in segments]
    position = torch.cat([*places, tokens.new_zeros(len(padding))])
    masks = [_causal(device, segment.start, len(segment.tokens)) for segment in segments]

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        keys, values, seen = cache.keys[layer], cache.values[layer], torch.zeros_like(query)
        for segment, end, mask in zip(segments, ends, masks, strict=True):
            if segment.source not in (None, segment.row):
                keys[segment.row, :, : segment.start] = keys[segment.source, :, : segment.start]
                values[segment.row, :, : segment.start] = values[segment.source, :, : segment.start]
            own = slice(end - len(segment.tokens), end)
            last = segment.start + len(segment.tokens)
            keys[segment.row, :, segment.start : last] = key[own].transpose(0, 1)
            values[segment.row, :, segment.start : last] = value[own].transpose(0, 1)
            seen[own] = _looked_at(weights, query[own], keys[segment.row], values[segment.row], mask)
        return seen

    hidden = _layers(weights, tokens, position, attend)
    lasts = hidden.new_zeros(rounded(len(segments), ROWS), hidden.shape[1])
    lasts[: len(segments)] = hidden[torch.tensor(ends, device=device) - 1]
    return linear(rms_norm(lasts, lasts.shape[1:], weights.norm, weights.epsilon), weights.head_weight)[: len(segments)]


def _looked_at(
    weights: Weights, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attention of one segment's queries [tokens, heads, head] to its row, under an additive mask [rows, length]."""
    count, (rows, length) = len(query), mask.shape
    per_key = weights.heads // weights.key_heads
    if _is_low(query):
        grouped = query.view(count, weights.key_heads, per_key, weights.head).permute(1, 2, 0, 3)
        keys, values = (past[:, None, :length].expand(-1, per_key, -1, -1) for past in (keys, values))
        return _seen_in_low(weights, grouped, keys, values, mask[:count]).permute(2, 0, 1, 3).flatten(1, 2)
    query, keys, values = query.float(), keys[:, :length].float(), values[:, :length].float()
    queries = query.new_zeros(weights.key_heads, per_key, rows, weights.head)
    grouped = (query * weights.head**-0.5).view(count, weights.key_heads, per_key, weights.head)
    queries[:, :, :count] = grouped.permute(1, 2, 0, 3)
    shape = (weights.key_heads, per_key, rows, -1)
    scores = queries.flatten(1, 2) @ keys.transpose(1, 2)
    shares = (scores.view(shape) + mask).softmax(-1).flatten(1, 2)
    seen = _weighted(shares, values).view(shape)
    return seen[:, :, :count].permute(2, 0, 1, 3).reshape(count, weights.heads, weights.head)


def _is_low(query: torch.Tensor) -> bool:
    """Whether attention is left to torch's kernel: on a processor in bf16, where it is three to five times as fast."""
    import torch

    return query.dtype == torch.bfloat16 and query.device.type == "cpu"


def _seen_in_low(
    weights: Weights, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attention with scores in fp32: rounded to bf16, a score of 10 is known to 0.03 only."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(query, keys, values, attn_mask=mask.to(query.dtype), scale=weights.head**-0.5)


def _weighted(shares: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`shares @ values`, summed over pieces of `SUMMED` positions: beyond that a product's own order depends on how
    many there are, and with it on whatever else is in the batch."""
    length = values.shape[-2]
    total = shares[..., :SUMMED] @ values[..., :SUMMED, :]
    for start in range(SUMMED, length, SUMMED):
        total = total + shares[..., start : start + SUMMED] @ values[..., start : start + SUMMED, :]
    return total


@functools.cache
def _triangle(device: torch.device) -> torch.Tensor:
    """[1024, 1024]: what a position may not look at is minus infinity."""
    import torch

    return torch.full((TRIANGLE, TRIANGLE), float("-inf"), device=device).triu(1)


def _causal(device: torch.device, start: int, count: int) -> torch.Tensor:
    """The additive mask of `count` positions from `start` on, both sides rounded up."""
    import torch

    rows, length = rounded(count, ROWS), rounded(start + count, BLOCK)
    if start + rows <= TRIANGLE and length <= TRIANGLE:
        return _triangle(device)[start : start + rows, :length]
    at = torch.arange(start, start + rows, device=device)[:, None]
    hidden = torch.arange(length, device=device) > at
    return torch.zeros(rows, length, device=device).masked_fill_(hidden, float("-inf"))


def decode(weights: Weights, cache: Cache, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
    """One more token in each of the cache's first rows; a multiple of `ROWS` of them, unused ones at position -1, which
    is the cache's last and never looked at. Those that the cache does not have attend to nothing.

    Returns:
        Logits [rows, vocabulary] of the next token.
    """
    import torch
    from torch.nn.functional import linear, rms_norm

    device, rows = weights.embedding.device, len(tokens)
    ids, at = torch.tensor(tokens, device=device), torch.tensor(positions, device=device)
    length = rounded(max(positions) + 1, BLOCK)
    kept = min(rows, cache.rows)
    row = torch.arange(kept, device=device)
    hidden_from = torch.arange(length, device=device) > at[:kept, None].clamp(min=0)
    mask = torch.zeros(kept, 1, 1, length, device=device).masked_fill_(hidden_from[:, None, None], float("-inf"))
    scale, per_key = weights.head**-0.5, weights.heads // weights.key_heads

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        keys, values = cache.keys[layer], cache.values[layer]
        keys[row, :, at[:kept]] = key[:kept]
        values[row, :, at[:kept]] = value[:kept]
        grouped = query[:kept].view(kept, weights.key_heads, per_key, weights.head)
        past_keys, past_values = keys[:kept, :, :length], values[:kept, :, :length]
        if _is_low(query):
            seen = _seen_in_low(weights, grouped, past_keys, past_values, mask)
        else:
            scores = (grouped.float() * scale) @ past_keys.float().transpose(2, 3)
            seen = _weighted((scores + mask).softmax(-1), past_values.float())
        attended = seen.new_zeros(rows, weights.heads, weights.head)
        attended[:kept] = seen.view(kept, weights.heads, weights.head)
        return attended

    hidden = _layers(weights, ids, at, attend)
    return linear(rms_norm(hidden, hidden.shape[1:], weights.norm, weights.epsilon), weights.head_weight)


def _layers(weights: Weights, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
    """Hidden states [tokens, size] after the last layer; `attend` is given [tokens, heads, head] and returns that."""
    from torch.nn.functional import rms_norm, silu

    heads, both = weights.heads, weights.heads + weights.key_heads
    hidden: torch.Tensor = weights.embedding[tokens]
    count, size = hidden.shape
    cos, sin = weights.cos[positions][:, None], weights.sin[positions][:, None]
    for number, layer in enumerate(weights.layers):
        normed = rms_norm(hidden, (size,), layer.norm, weights.epsilon)
        qkv = _product(normed, layer.qkv, layer.qkv_bias, layer.qkv_change).view(count, -1, weights.head)
        query_key, value = qkv[:, :both], qkv[:, both:]
        if layer.query_norm is not None:
            query_key = _normed(query_key, layer, heads, weights.epsilon)
        turned = query_key * cos + query_key.roll(weights.head // 2, -1) * sin
        seen = attend(number, turned[:, :heads], turned[:, heads:], value).reshape(count, -1).to(hidden.dtype)
        hidden = hidden + _product(seen, layer.out, layer.out_bias, layer.out_change)
        normed = rms_norm(hidden, (size,), layer.mlp_norm, weights.epsilon)
        gate, up = _product(normed, layer.gate_up, None, layer.gate_up_change).chunk(2, dim=-1)
        hidden = hidden + _product(silu(gate) * up, layer.down, None, layer.down_change)
    return hidden


def _product(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, change: LowRank | None
) -> torch.Tensor:
    """A layer's product, with what an adapter that is not merged adds to it."""
    from torch.nn.functional import linear

    result = linear(hidden, weight, bias)
    return result if change is None else result + linear(linear(hidden, change.inner), change.outer)


def _normed(query_key: torch.Tensor, layer: Layer, heads: int, epsilon: float) -> torch.Tensor:
    """Qwen3's norms of queries and keys."""
    import torch
    from torch.nn.functional import rms_norm

    shape = query_key.shape[-1:]
    query = rms_norm(query_key[:, :heads], shape, layer.query_norm, epsilon)
    return torch.cat([query, rms_norm(query_key[:, heads:], shape, layer.key_norm, epsilon)], dim=1)
