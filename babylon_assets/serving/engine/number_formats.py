"""In which numbers the engine computes: fp32, or bf16 where that is fast and the model is large.

The log-probabilities that are recorded are those of the numbers that sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: Processor features with which bf16 matrix products are faster than fp32 ones.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
#: A model of fewer parameters computes in fp32: its products take a small part of its time.
LARGE = 100_000_000


def engine_dtype(base: Path) -> str:
    """`float32` or `bfloat16`: what suits a base model, and this machine's processor or CUDA device."""
    import torch
    from transformers import AutoConfig

    is_fast = bf16_is_fast() or torch.cuda.is_available()
    is_large = is_fast and count_parameters(AutoConfig.from_pretrained(base).to_dict()) >= LARGE
    return "bfloat16" if is_large else "float32"


def count_parameters(config: Mapping[str, Any]) -> int:
    """Embeddings, and per layer the attention's four matrices and the feed-forward part's three."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config.get("head_dim") or hidden // heads)
    key_values = int(config.get("num_key_value_heads") or heads)
    attention = 2 * hidden * width * (heads + key_values)
    layer = attention + 3 * hidden * int(config["intermediate_size"])
    embeddings = 1 if config.get("tie_word_embeddings") else 2
    return embeddings * int(config["vocab_size"]) * hidden + int(config["num_hidden_layers"]) * layer


@cache
def bf16_is_fast() -> bool:
    """Whether the processor has instructions for bf16; False where /proc/cpuinfo does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(BF16_FLAGS & set(flags.split()))
