"""Which policies can be played here: a checkpoint's weights on this machine, answered by the embedded engine."""

from __future__ import annotations

from pathlib import Path

from babylon_assets.core.policies import Policy, policy_name
from babylon_assets.settings import Settings, prepare_libraries
from babylon_assets.store.checkpoints import Checkpoint
from babylon_assets.training.adapters import WEIGHTS


def why_unplayable(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be played on this machine; None when it can."""
    if checkpoint.backend not in ("base", "embedded", "local_gpu"):
        return "its weights lie with the hosted service, and nothing here can play them"
    if not _is_here(checkpoint.base_model):
        return f"the weights of its base model {checkpoint.base_model} are not on this machine"
    if checkpoint.step and not (checkpoint.path and (Path(checkpoint.path) / WEIGHTS).is_file()):
        return "its weights are not kept on this machine any more"
    return None


def _is_here(base_model: str) -> bool:
    """Whether a base model is a folder, or lies whole in the hub's cache; nothing is fetched to be judged."""
    if Path(base_model).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(base_model, name), str) for name in names)


def adapter_of(checkpoint: Checkpoint) -> Path | None:
    """The folder of its weights; None for a root, which is the base model as it is."""
    return Path(checkpoint.path) if checkpoint.step else None


def player(settings: Settings, checkpoint: Checkpoint) -> Policy:
    """The policy of a checkpoint, ready to answer batches; `why_unplayable` was asked before."""
    prepare_libraries(settings)
    import torch

    from babylon_assets.serving.engine import Engine

    torch.set_num_threads(settings.threads)
    name = policy_name(checkpoint.chain, checkpoint.step)
    engine = Engine(Path(checkpoint.base_model), name)
    if checkpoint.step:
        engine.activate(adapter_of(checkpoint), name)
    return engine
