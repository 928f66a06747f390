"""The weights of the engine's forward pass: read from a base model's folder, with an adapter merged or beside it.

A small model's adapter is merged: nothing is faster. A large model's stays beside the base model's weights, which all
policies then share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babylon_assets.domain.errors import BaseModelRefused

if TYPE_CHECKING:
    import torch

FAMILIES = ("qwen2", "qwen3", "llama")
#: Of whose rotary embedding no table can be made once and for all.
_MOVING_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class LowRank:
    """What a LoRA adapter adds to a product: `outer @ inner @ hidden`, its scale included in `outer`.

    Attributes:
        inner: [rank, in]; outer: [out, rank]. Of matrices that are computed as one, the ranks lie side by side.
    """

    inner: torch.Tensor
    outer: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, each [out, in]; biases and the norms of queries and keys are None where there are none.

    The changes are those of an adapter that is not merged.
    """

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
    qkv_change: LowRank | None = None
    out_change: LowRank | None = None
    gate_up_change: LowRank | None = None
    down_change: LowRank | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model with its adapter, ready for `prefill` and `decode`.

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


def load_weights(
    base: Path, adapter: Path | None, device: torch.device, ends: frozenset[int], dtype: str = "float32"
) -> Weights:
    """Read the base model from its folder and merge the adapter into it (None: the base model as it is).

    Raises:
        BaseModelRefused: a model of another family, or with layers that this forward pass does not have.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
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
    tied = model.lm_head.weight is inner.embed_tokens.weight
    embedding = _owned(inner.embed_tokens.weight)
    cos, sin = inner.rotary_emb(torch.zeros(1, dtype=model.dtype, device=model.device), positions)
    return Weights(
        embedding=embedding,
        layers=tuple(_layer(inner.layers.pop(0)) for _ in range(len(inner.layers))),
        norm=_owned(inner.norm.weight),
        head_weight=embedding if tied else _owned(model.lm_head.weight),
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
    """One layer's weights, out of a model that has no use for it any more: the fused ones are copies."""
    import torch

    attention, mlp = layer.self_attn, layer.mlp
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = inputs[0].bias is not None
    return Layer(
        norm=_owned(layer.input_layernorm.weight),
        qkv=torch.cat([projection.weight.detach() for projection in inputs]),
        qkv_bias=torch.cat([projection.bias.detach() for projection in inputs]) if biased else None,
        query_norm=_owned(attention.q_norm.weight) if hasattr(attention, "q_norm") else None,
        key_norm=_owned(attention.k_norm.weight) if hasattr(attention, "k_norm") else None,
        out=_owned(attention.o_proj.weight),
        out_bias=None if attention.o_proj.bias is None else _owned(attention.o_proj.bias),
        mlp_norm=_owned(layer.post_attention_layernorm.weight),
        gate_up=torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]),
        down=_owned(mlp.down_proj.weight),
    )


def _owned(weight: torch.Tensor) -> torch.Tensor:
    """A tensor that does not keep the model's file mapped: 270 MB of SmolLM2, beside the fused copies of most of it."""
    return weight.detach().clone() if weight.device.type == "cpu" else weight.detach()
