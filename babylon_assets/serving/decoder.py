"""The forward pass of the engine: Qwen2, Qwen3 and Llama models over a key-value cache with a row per answer.

Written out instead of taken from transformers for two reasons. A small model's step is mostly overhead, of which this
has a third. And what a row gets does not depend on its neighbours, bit for bit on a CPU: matrix products always have at
least eight rows, because the kernels for one and two sum in another order, and what is attended to is padded to whole
blocks with exact zeros. Which rows there are, and what is sampled, is decided in `batching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babylon_assets.core.errors import BaseModelRefused

if TYPE_CHECKING:
    import torch

FAMILIES = ("qwen2", "qwen3", "llama")
#: Fewest rows of a matrix product, and what their number is rounded up to.
ROWS = 8
#: Positions that are attended to are rounded up to this.
BLOCK = 64
#: Of whose rotary embedding no table can be made once and for all.
_MOVING_ROPE = ("dynamic", "longrope")

Attend = Callable[[int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def rounded(count: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-count // to) * to


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, each [out, in]; biases and the norms of queries and keys are None where there are none."""

    norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """A model with its adapter merged, ready for `prefill` and `decode`.

    Attributes:
        heads, key_heads, head: query heads, key-value heads, and their size.
        cos, sin: [context, head], the rotary embedding of each position.
        context: most positions of a conversation with its answer.
        ends: tokens that end a turn.
    """

    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head_weight: torch.Tensor
    epsilon: float
    heads: int
    key_heads: int
    head: int
    cos: torch.Tensor
    sin: torch.Tensor
    context: int
    ends: frozenset[int]


def load_weights(base: Path, adapter: Path | None, device: torch.device, ends: frozenset[int]) -> Weights:
    """Read the base model from its folder and merge the adapter into it (None: the base model as it is).

    Raises:
        BaseModelRefused: a model of another family, or with layers that this forward pass does not have.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    _refuse_unknown(model.config)
    with torch.inference_mode():
        return _weights(model.to(device).eval(), ends | _ends(model))


def _refuse_unknown(config: Any) -> None:
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    sliding = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    if config.model_type not in FAMILIES or config.hidden_act != "silu" or sliding or rope in _MOVING_ROPE:
        raise BaseModelRefused(
            f"the embedded engine cannot run a {config.model_type} model with {config.hidden_act}, rope {rope} and "
            f"layers {sorted(set(getattr(config, 'layer_types', None) or ()))}; set BASE_MODEL to a plain one of "
            f"{', '.join(FAMILIES)}, or GATEWAY_ENGINE to a server that can"
        )


def _ends(model: Any) -> frozenset[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def _weights(model: Any, ends: frozenset[int]) -> Weights:
    import torch

    config, inner = model.config, model.model
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    context = int(config.max_position_embeddings)
    positions = torch.arange(context, device=model.device)[None]
    cos, sin = inner.rotary_emb(torch.zeros(1, dtype=torch.float32, device=model.device), positions)
    return Weights(
        embedding=inner.embed_tokens.weight.detach(),
        layers=tuple(map(_layer, inner.layers)),
        norm=inner.norm.weight.detach(),
        head_weight=model.lm_head.weight.detach(),
        epsilon=float(config.rms_norm_eps),
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head=head,
        cos=cos[0],
        sin=torch.cat([-sin[0, :, : head // 2], sin[0, :, head // 2 :]], dim=-1),
        context=context,
        ends=ends,
    )


def _layer(layer: Any) -> Layer:
    import torch

    attention, mlp = layer.self_attn, layer.mlp
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = inputs[0].bias is not None
    return Layer(
        norm=layer.input_layernorm.weight.detach(),
        qkv=torch.cat([each.weight.detach() for each in inputs]),
        qkv_bias=torch.cat([each.bias.detach() for each in inputs]) if biased else None,
        query_norm=attention.q_norm.weight.detach() if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight.detach() if hasattr(attention, "k_norm") else None,
        out=attention.o_proj.weight.detach(),
        out_bias=None if attention.o_proj.bias is None else attention.o_proj.bias.detach(),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]),
        down=mlp.down_proj.weight.detach(),
    )


class Cache:
    """Keys and values of every row: per layer [rows, key-value heads, positions, head]; grows, never shrinks."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._rows = self._length = 0

    def fit(self, rows: int, length: int) -> None:
        """Make room for so many rows and positions; what is there stays."""
        if rows <= self._rows and length <= self._length:
            return
        if rows > self._rows:
            rows = max(rounded(rows, ROWS), 2 * self._rows)
        if length > self._length:
            length = min(max(rounded(length, 4 * BLOCK), 2 * self._length), rounded(self._weights.context, BLOCK))
        rows, length = max(rows, self._rows), max(length, self._length)
        self.keys, self.values = self._grown(self.keys, rows, length), self._grown(self.values, rows, length)
        self._rows, self._length = rows, length

    def _grown(self, old: list[torch.Tensor], rows: int, length: int) -> list[torch.Tensor]:
        made = []
        for number in range(len(self._weights.layers)):
            new = self._weights.embedding.new_zeros(rows, self._weights.key_heads, length, self._weights.head)
            if old:
                new[: self._rows, :, : self._length] = old[number]
            made.append(new)
        return made


def prefill(weights: Weights, cache: Cache, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> torch.Tensor:
    """Read prompts into rows of the cache, which must fit them.

    Returns:
        Logits [prompts, vocabulary] of the token after each prompt.
    """
    import torch
    from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention

    device = weights.embedding.device
    lengths = [len(prompt) for prompt in prompts]
    longest = rounded(max(lengths), BLOCK)
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    number = torch.repeat_interleave(torch.arange(len(prompts), device=device), torch.tensor(lengths, device=device))
    position = torch.cat([torch.arange(length, device=device) for length in lengths])
    placed = torch.tensor(rows, device=device)
    row = placed[number]

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        cache.keys[layer][row, :, position] = key
        cache.values[layer][row, :, position] = value
        shape = (len(prompts), longest, weights.heads, weights.head)
        asked = query.new_zeros(shape)
        asked[number, position] = query
        keys, values = cache.keys[layer][placed, :, :longest], cache.values[layer][placed, :, :longest]
        gqa = weights.heads != weights.key_heads
        seen = scaled_dot_product_attention(asked.transpose(1, 2), keys, values, is_causal=True, enable_gqa=gqa)
        return seen.transpose(1, 2)[number, position]

    hidden = _layers(weights, tokens, position, attend)
    last = torch.tensor(lengths, device=device).cumsum(0) - 1
    ends = hidden.new_zeros(rounded(len(prompts), ROWS), hidden.shape[1])
    ends[: len(prompts)] = hidden[last]
    return linear(rms_norm(ends, ends.shape[1:], weights.norm, weights.epsilon), weights.head_weight)[: len(prompts)]


def decode(weights: Weights, cache: Cache, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
    """One more token in each of the cache's first rows; a multiple of `ROWS` of them, unused ones at position 0.

    Returns:
        Logits [rows, vocabulary] of the next token.
    """
    import torch
    from torch.nn.functional import linear, rms_norm

    device, rows = weights.embedding.device, len(tokens)
    ids, at = torch.tensor(tokens, device=device), torch.tensor(positions, device=device)
    length = rounded(max(positions) + 1, BLOCK)
    row = torch.arange(rows, device=device)
    hidden_from = torch.arange(length, device=device) > at[:, None]
    mask = torch.zeros(rows, 1, 1, length, device=device).masked_fill_(hidden_from[:, None, None], float("-inf"))
    scale, per_key = weights.head**-0.5, weights.heads // weights.key_heads

    def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        keys, values = cache.keys[layer], cache.values[layer]
        keys[row, :, at] = key
        values[row, :, at] = value
        asked = (query * scale).view(rows, weights.key_heads, per_key, weights.head)
        scores = asked @ keys[:rows, :, :length].transpose(2, 3)
        seen = (scores + mask).softmax(-1) @ values[:rows, :, :length]
        return seen.view(rows, weights.heads, weights.head)

    hidden = _layers(weights, ids, at, attend)
    return linear(rms_norm(hidden, hidden.shape[1:], weights.norm, weights.epsilon), weights.head_weight)


def _layers(weights: Weights, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
    """Hidden states [tokens, size] after the last layer; `attend` is given [tokens, heads, head] and returns that."""
    from torch.nn.functional import linear, rms_norm, silu

    heads, both = weights.heads, weights.heads + weights.key_heads
    hidden: torch.Tensor = weights.embedding[tokens]
    count, size = hidden.shape
    cos, sin = weights.cos[positions][:, None], weights.sin[positions][:, None]
    for number, layer in enumerate(weights.layers):
        normed = rms_norm(hidden, (size,), layer.norm, weights.epsilon)
        qkv = linear(normed, layer.qkv, layer.qkv_bias).view(count, -1, weights.head)
        query_key, value = qkv[:, :both], qkv[:, both:]
        if layer.query_norm is not None:
            query_key = _normed(query_key, layer, heads, weights.epsilon)
        turned = query_key * cos + query_key.roll(weights.head // 2, -1) * sin
        seen = attend(number, turned[:, :heads], turned[:, heads:], value).reshape(count, -1)
        hidden = hidden + linear(seen, layer.out, layer.out_bias)
        normed = rms_norm(hidden, (size,), layer.mlp_norm, weights.epsilon)
        gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
        hidden = hidden + linear(silu(gate) * up, layer.down)
    return hidden


def _normed(query_key: torch.Tensor, layer: Layer, heads: int, epsilon: float) -> torch.Tensor:
    """Qwen3's norms of queries and keys."""
    import torch
    from torch.nn.functional import rms_norm

    shape = query_key.shape[-1:]
    query = rms_norm(query_key[:, :heads], shape, layer.query_norm, epsilon)
    return torch.cat([query, rms_norm(query_key[:, heads:], shape, layer.key_norm, epsilon)], dim=1)
