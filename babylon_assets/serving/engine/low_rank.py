"""Adapters beside the weights that they change, so that several policies share one base model in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.serving.engine.model_weights import Layer, LowRank, Weights

if TYPE_CHECKING:
    import torch

#: The products of a layer that an adapter of ours changes, and where transformers keeps each.
_PLACES = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn")
_PLACES |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp")
#: What of an adapter's config means that it changes more than products, or each by another scale.
_SPECIAL = ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "layer_replication")


def with_adapter(base: Weights, adapter: Path) -> Weights | None:
    """The base model's weights with an adapter beside them; None for an adapter of a kind that has to be merged."""
    from safetensors.torch import load_file

    config = json.loads((adapter / "adapter_config.json").read_text())
    special = any(config.get(name) for name in _SPECIAL) or config.get("bias", "none") != "none"
    if special or set(config["target_modules"]) != set(_PLACES):
        return None
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
    tensors = load_file(adapter / WEIGHTS)
    if len(tensors) != 2 * len(_PLACES) * len(base.layers):
        return None
    layers = tuple(_changed(layer, tensors, number, scale) for number, layer in enumerate(base.layers))
    return replace(base, layers=layers)


def _changed(layer: Layer, tensors: Mapping[str, torch.Tensor], number: int, scale: float) -> Layer:
    def beside(*names: str) -> LowRank:
        places = [f"base_model.model.model.layers.{number}.{_PLACES[name]}.{name}" for name in names]
        inner = [tensors[f"{place}.lora_A.weight"] for place in places]
        outer = [scale * tensors[f"{place}.lora_B.weight"].float() for place in places]
        return _side_by_side(inner, outer, layer.qkv)

    return replace(
        layer,
        qkv_change=beside("q_proj", "k_proj", "v_proj"),
        out_change=beside("o_proj"),
        gate_up_change=beside("gate_proj", "up_proj"),
        down_change=beside("down_proj"),
    )


def _side_by_side(inner: Sequence[torch.Tensor], outer: Sequence[torch.Tensor], like: torch.Tensor) -> LowRank:
    """The changes of matrices that are computed as one."""
    import torch

    blocks: torch.Tensor = torch.block_diag(*outer)  # type: ignore[no-untyped-call]
    return LowRank(torch.cat(list(inner)).to(like), blocks.to(like))
