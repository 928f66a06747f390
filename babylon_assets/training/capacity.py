"""What a base model's config says of it: the longest conversation that it reads, room on the disk, memory of a GPU.

Room and memory are estimates, for `babylon doctor` to warn by.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.serving.engine.number_formats import LARGE
from babylon_assets.training.families import find_config
from babylon_assets.training.precision import parameters_of

#: Checkpoints that `babylon prune` keeps unless it is told otherwise.
KEPT = 24
#: What the embedded database, logs and the small base model take, in GiB.
BESIDES = 1.0
#: The largest rank of an adapter where LORA_RANK is not set.
MOST_RANK = 32
_SIZE_IN_NAME = re.compile(r"(\d+(?:\.\d+)?)\s*[bB](?![a-zA-Z])")


def known_parameters(base_model: str) -> int | None:
    """Parameters of a base model by its config, or by its name where the config is not on this machine; else None."""
    if find_config(base_model) is not None:
        return parameters_of(base_model)
    named = _SIZE_IN_NAME.search(base_model.rpartition("/")[2])
    return round(float(named.group(1)) * 1e9) if named else None


def choose_threads(settings: Settings, base_model: str) -> int:
    """CPU threads that a base model is computed with: the many small tensors of a small one gain nothing by a second.

    What is summed by another number of threads differs in the last digits, so that a language model's checkpoint is
    repeated bit for bit only where TRAIN_THREADS says how many.
    """
    if settings.training.threads is not None:
        return settings.training.threads
    return cores() if (known_parameters(base_model) or 0) >= LARGE else 1


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def context_of(base_model: str) -> int | None:
    """How many tokens a base model reads at most; None where its config is not on this machine or does not say."""
    config = find_config(base_model)
    tokens = json.loads(config.read_text()).get("max_position_embeddings") if config is not None else None
    return int(tokens) if tokens else None


def checkpoint_gib(base_model: str, rank: int) -> float | None:
    """Size of a checkpoint: the adapter in fp32, and AdamW's two moments of it beside it; None without a config."""
    config = find_config(base_model)
    if config is None:
        return None
    return 3 * 4 * _adapter_parameters(json.loads(config.read_text()), rank) / 2**30


def _adapter_parameters(config: dict[str, Any], rank: int) -> int:
    """A LoRA adapter on a layer's seven matrices has rank x (inputs + outputs) parameters each."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config.get("head_dim") or hidden // heads)
    queries = heads * width
    keys = int(config.get("num_key_value_heads") or heads) * width
    sides = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + int(config["intermediate_size"]))
    return int(config["num_hidden_layers"]) * rank * sides


def disk_gib(settings: Settings, base_model: str | None) -> float:
    """Room for what is kept of checkpoints, for a base model that has to be fetched, and for everything besides."""
    if base_model is None:
        return BESIDES
    fetched = 0.0 if find_config(base_model) is not None else 2 * (known_parameters(base_model) or 0) / 2**30
    return BESIDES + fetched + KEPT * (checkpoint_gib(base_model, settings.embedded.lora_rank or MOST_RANK) or 0.05)


def gpu_gib(base_model: str) -> float | None:
    """GPU memory for training a base model: weights in bf16, and 3 GiB for activations, adapter and the driver."""
    parameters = known_parameters(base_model)
    return None if parameters is None else 2 * parameters / 2**30 + 3
