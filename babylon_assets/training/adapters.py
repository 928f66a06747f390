"""LoRA adapters on disk: making one, loading a checkpoint to train on, writing the next one.

A checkpoint is a folder with peft's `adapter_model.safetensors` and `adapter_config.json` in ART's layout, the
optimizer's state in `optimizer.safetensors`, `manifest.json`, which says what it was made from, and `steps.json`, the
metrics of the steps that made it. A folder is written aside, synced and renamed, so that a half-written checkpoint
never has a checkpoint's name.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babylon_assets.ledger.adapter_weights import WEIGHTS as WEIGHTS  # noqa: PLC0414 - known from here too
from babylon_assets.ledger.adapter_weights import weights_sha256 as weights_sha256  # noqa: PLC0414 - likewise
from babylon_assets.training.families import require_family

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
STEPS = "steps.json"
OPTIMIZER = "optimizer.safetensors"
#: Every linear layer of the Qwen2, Qwen3 and Llama families.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load_trainable(
    base: str, checkpoint: Path | None, *, rank: int, seed: int, device: torch.device, dtype: str = "float32"
) -> Any:
    """The base model with a trainable adapter: the checkpoint's, or for None a new one that changes nothing yet.

    Args:
        dtype: of the base model's weights, `float32` or `bfloat16`; the adapter's are fp32.

    Raises:
        BaseModelRefused: the model is of no family that is trained here.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    require_family(base, AutoConfig.from_pretrained(base).model_type)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if checkpoint is not None:
        adapted: Any = PeftModel.from_pretrained(model, str(checkpoint), is_trainable=True).to(device)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, task_type="CAUSAL_LM")
            adapted = get_peft_model(model, config).to(device)
    if dtype == "bfloat16":
        from babylon_assets.training.adapted_linear import adapt_linear_layers

        adapt_linear_layers(adapted)
        if device.type == "cpu":
            from babylon_assets.training.short_attention import attend_short_rows

            attend_short_rows(adapted.get_base_model())
    return adapted


def compute_layers_again(model: Any, share: float) -> None:
    """Which layers the backward pass computes again: the first ones, this share of them and one more.

    The one more makes room for what the others read, which is kept. All of them are a quarter of a step's time. What a
    step keeps of SmolLM2 without is 1 MB a token. transformers does it for layers in training mode only; these families
    have no dropout.
    """
    model.eval()
    layers = model.get_base_model().model.layers
    for layer in layers[: math.ceil(share * len(layers)) + 1] if share else ():
        layer.training = True


def write_checkpoint(
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    manifest: dict[str, Any],
    steps: list[dict[str, float]],
    checkpoints: Path,
    step: int,
) -> Path:
    """Write checkpoint `step` under `checkpoints` and return its folder; it appears whole or not at all."""
    final, building = checkpoints / f"{step:04d}", checkpoints / f".building-{step:04d}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    model.save_pretrained(building, safe_serialization=True)
    _write_optimizer(model, optimizer, building / OPTIMIZER)
    _complete(building, manifest, steps, final)
    return final


def publish_checkpoint(folder: Path, manifest: dict[str, Any], steps: list[dict[str, float]], final: Path) -> None:
    """Bring a checkpoint that another program made to its place, with its manifest; it appears whole or not at all."""
    building = final.with_name(f".building-{final.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, building)
    _complete(building, manifest, steps, final)


def _complete(building: Path, manifest: dict[str, Any], steps: list[dict[str, float]], final: Path) -> None:
    (building / STEPS).write_text(json.dumps(steps, indent=1))
    (building / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))
    for file in building.iterdir():
        _sync(file)
    _sync(building)
    building.rename(final)
    _sync(final.parent)


def read_manifest(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint was made from; None when the folder holds no whole checkpoint of ours."""
    path = checkpoint / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def read_steps(checkpoint: Path) -> list[dict[str, float]]:
    """The metrics of the optimizer steps that made a checkpoint, in their order."""
    steps: list[dict[str, float]] = json.loads((checkpoint / STEPS).read_text())
    return steps


def restore_optimizer(model: Any, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> None:
    """Give the optimizer the state that it had when the checkpoint was written, if the checkpoint has one."""
    from safetensors.torch import load_file

    if checkpoint is None or not (checkpoint / OPTIMIZER).is_file():
        return
    saved = load_file(checkpoint / OPTIMIZER)
    for name, parameter in _trainable(model):
        optimizer.state[parameter] = {
            key: saved[f"{name}:{key}"].to("cpu" if key == "step" else parameter.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
        }


def _write_optimizer(model: Any, optimizer: torch.optim.Optimizer, path: Path) -> None:
    from safetensors.torch import save_file

    state = {
        f"{name}:{key}": value.detach().cpu().contiguous()
        for name, parameter in _trainable(model)
        for key, value in optimizer.state[parameter].items()
    }
    save_file(state, path)


def _trainable(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
