"""Which policies can be played here: by the embedded engine, from weights on this machine, or by their backend."""

from __future__ import annotations

from pathlib import Path

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.policies import Policy, policy_name
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.training.backend import TrainingBackend
from babylon_assets.training.backends.registry import choose_backend, find_backend, keeps_weights_here
from babylon_assets.training.capacity import choose_threads


def why_not_loadable(settings: Settings, checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be played from this machine; None when it can."""
    remote = _remote_backend(settings, checkpoint)
    return why_not_here(checkpoint) if remote is None else remote.why_not_answering(settings, checkpoint)


def why_not_here(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint's weights cannot be used on this machine; None when they can."""
    if checkpoint.step and not keeps_weights_here(checkpoint.backend):
        return f"its weights lie with {find_backend(checkpoint.backend).title}"
    if not _is_here(checkpoint.base_model):
        return f"the weights of its base model {checkpoint.base_model} are not on this machine"
    if checkpoint.step and not (checkpoint.path and (Path(checkpoint.path) / WEIGHTS).is_file()):
        return "its weights are not kept on this machine any more"
    return None


def _remote_backend(settings: Settings, checkpoint: Checkpoint) -> TrainingBackend | None:
    """The backend that answers for a policy: for one that it trained, or for a base model that it trains elsewhere."""
    if checkpoint.step:
        backend = find_backend(checkpoint.backend)
    elif not _is_here(checkpoint.base_model):
        backend = choose_backend(settings).backend
    else:
        return None
    return None if backend.capabilities.keeps_weights_here else backend


def _is_here(base_model: str) -> bool:
    """Whether a base model is a folder, or lies whole in the hub's cache; nothing is fetched to be judged."""
    if Path(base_model).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(base_model, name), str) for name in names)


def adapter_of(checkpoint: Checkpoint) -> Path | None:
    """The folder of its weights; None for a root, which is the base model as it is.

    Raises:
        CorruptLedger: the weights there are not those that the ledger recorded.
    """
    if not checkpoint.step:
        return None
    verify_weights(Path(checkpoint.path), checkpoint.weights_sha256)
    return Path(checkpoint.path)


def load_policy(settings: Settings, checkpoint: Checkpoint) -> Policy:
    """The policy of a checkpoint, ready to answer batches; `why_not_loadable` was asked before."""
    if (remote := _remote_backend(settings, checkpoint)) is not None:
        return remote.open_policy(settings, checkpoint)
    prepare_libraries(settings)
    import torch

    from babylon_assets.serving.engine.engine import Engine

    torch.set_num_threads(choose_threads(settings, checkpoint.base_model))
    name = policy_name(checkpoint.chain, checkpoint.step)
    engine = Engine(Path(checkpoint.base_model), name)
    if checkpoint.step:
        engine.activate(adapter_of(checkpoint), name)
    return engine
