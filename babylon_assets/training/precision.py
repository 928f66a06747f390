"""With which numbers the embedded trainer computes: fp32, or bf16 where that is fast and the model is large.

Answers are sampled in fp32. A small model is trained in fp32 as well, so that the first step's ratios are 1 to within
1e-4; computing in bf16 moves them to between 0.955 and 1.039, and makes its steps 1.5 times as fast. What a large one
gains is more: `make bench-training` measures both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.training.devices import bf16_is_fast, cuda_device
from babylon_assets.training.families import find_config

#: A model of fewer parameters is trained in fp32 when TRAIN_DTYPE is auto.
LARGE = 100_000_000


def train_dtype(settings: Settings, base_model: str) -> str:
    """`float32` or `bfloat16`: what TRAIN_DTYPE says, or for `auto` what suits the model and this machine."""
    if settings.embedded.dtype != "auto":
        return settings.embedded.dtype
    if not bf16_is_fast() and cuda_device() is None:
        return "float32"
    return "bfloat16" if parameters_of(base_model) >= LARGE else "float32"


def parameters_of(base_model: str) -> int:
    """About how many parameters a model of the Qwen2, Qwen3 or Llama family has, by its config.json.

    The config of a hub name that is not on this machine yet is fetched.
    """
    config = find_config(base_model)
    if config is None:
        from huggingface_hub import hf_hub_download

        config = Path(hf_hub_download(base_model, "config.json"))
    return _count(json.loads(config.read_text()))


def _count(config: dict[str, Any]) -> int:
    """Embeddings, and per layer the attention's four matrices and the feed-forward part's three."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config.get("head_dim") or hidden // heads)
    key_values = int(config.get("num_key_value_heads") or heads)
    attention = 2 * hidden * width * (heads + key_values)
    layer = attention + 3 * hidden * int(config["intermediate_size"])
    embeddings = 1 if config.get("tie_word_embeddings") else 2
    return embeddings * int(config["vocab_size"]) * hidden + int(config["num_hidden_layers"]) * layer
