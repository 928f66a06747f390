"""With which numbers the embedded trainer computes: fp32, or bf16 where that is fast and the model is large.

A small model samples and is trained in fp32, so that the first step's ratios are 1 to within 1e-4; computing in bf16
moves them to between 0.955 and 1.039, and makes its steps 1.5 times as fast. What a large one gains is more: `make
bench-training` measures both. On the same machines the engine samples from a large one in bf16; TRAIN_DTYPE changes
only what training computes with.
"""

from __future__ import annotations

import json
from pathlib import Path

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BaseModelRefused, RegistryUnavailable
from babylon_assets.serving.engine.number_formats import LARGE, bf16_is_fast, count_parameters
from babylon_assets.training.devices import cuda_device
from babylon_assets.training.families import find_config


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

    Raises:
        BaseModelRefused: the hub has no such model, or one without a config.
        RegistryUnavailable: the hub does not answer.
    """
    return count_parameters(json.loads((find_config(base_model) or _fetch_config(base_model)).read_text()))


def _fetch_config(base_model: str) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(base_model, "config.json"))
    except (RepositoryNotFoundError, RemoteEntryNotFoundError, HFValidationError) as error:
        raise BaseModelRefused(
            f"the hub shows no model {base_model} with a config.json; set BASE_MODEL to another, or HF_TOKEN to a "
            "token that may read it"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise RegistryUnavailable(
            f"the config of the base model {base_model} cannot be fetched from the hub now; try again, or set "
            "BASE_MODEL to the model's folder"
        ) from error
