"""What the activations of one training step take, before it is taken: what bounds a step, and what is left out of it.

An estimate with some room: a layer keeps about 28 numbers a token for each unit of its width and 12 for each of its
feed forward's, with LoRA on all seven matrices. A number takes 4 bytes in fp32 and 1.4 in bf16, where less is kept for
the backward pass: SmolLM2-135M was measured at 0.70 of the estimate in both (2.9 and 1.0 MB a token). Attention's own
needs grow with a token, not with its square.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from babylon_assets.domain.datasets import Sample
from babylon_assets.training.devices import cuda_device
from babylon_assets.training.families import find_config
from babylon_assets.training.selection import Selection

#: Tokens whose activations exist at the same time where the model's config says nothing.
STEP_TOKENS = 16_384
#: What a step may take on a processor, and the share that it may take of a GPU's memory.
STEP_BYTES, GPU_SHARE = 2**30, 1 / 6
#: A step looks at so many tokens together at least, and computes layers again whose activations do not fit.
LEAST_TOKENS = 512
#: Why a sample is left out that no step has room for.
TOO_LARGE = "larger than the memory suffices for"
_BYTES = {"float32": 4.0, "bfloat16": 1.4}
_OF_WIDTH, _OF_FEED_FORWARD = 28, 12


def activation_bytes(base_model: str, dtype: str = "float32", *, again: bool = False) -> int | None:
    """Bytes that training on one token takes until its gradient is known; None without a config.

    Args:
        dtype: what the model computes in, `float32` or `bfloat16`.
        again: the backward pass computes each layer again: only one has its activations, of the others what they read.
    """
    config = find_config(base_model)
    if config is None:
        return None
    fields: dict[str, Any] = json.loads(config.read_text())
    width = _OF_WIDTH * int(fields["hidden_size"]) + _OF_FEED_FORWARD * int(fields["intermediate_size"])
    layers, read = int(fields["num_hidden_layers"]), int(fields["hidden_size"])
    return int(_BYTES[dtype] * (width + layers * read if again else layers * width))


def kept_tokens(base_model: str, dtype: str = "float32", available: int | None = None) -> int:
    """Tokens whose activations a step may keep until their gradient is known; it looks at as many together.

    Of a row with more tokens, as many layers are computed again. On a processor they are 258 of SmolLM2-135M in fp32,
    and 739 in bf16; fewer where less memory is there.

    Args:
        available: as of `available_bytes`.
    """
    needed, device = activation_bytes(base_model, dtype), cuda_device()
    if needed is None:
        return STEP_TOKENS
    allowed = STEP_BYTES if device is None else int(GPU_SHARE * device.memory_gib * 2**30)
    return (allowed if available is None else min(allowed, available)) // needed


def available_bytes() -> int | None:
    """Memory that a step could have now: the GPU's, or what the system says is free; None where it does not say."""
    if (device := cuda_device()) is not None:
        return int(device.memory_gib * 2**30)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(free[0]) * 1024 if free else None


def leave_out_heavier(selection: Selection, base_model: str, available: int | None, dtype: str) -> Selection:
    """The selection without samples for each of which alone the memory does not suffice, counted under the reason.

    Args:
        available: as of `available_bytes`.
        dtype: as of `activation_bytes`.
    """
    needed = activation_bytes(base_model, dtype, again=True)
    if needed is None or available is None:
        return selection
    most = available // needed  # tokens
    policy_gradient = [sample for sample in selection.policy_gradient if _tokens(sample) <= most]
    sft = [sample for sample in selection.sft if _tokens(sample) <= most]
    lost = len(selection.policy_gradient) + len(selection.sft) - len(policy_gradient) - len(sft)
    counted = {TOO_LARGE: lost} if lost else {}
    return replace(selection, policy_gradient=policy_gradient, sft=sft, left_out={**selection.left_out, **counted})


def _tokens(sample: Sample) -> int:
    """Tokens of a sample; of one that is known as text only, a quarter of its characters."""
    if sample.prompt_token_ids and sample.token_ids:
        return len(sample.prompt_token_ids) + len(sample.token_ids)
    return (sum(len(message.content) for message in sample.messages) + len(sample.response)) // 4
