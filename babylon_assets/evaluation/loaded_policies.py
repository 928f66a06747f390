"""Which policies can be played here: by the embedded engine, from weights on this machine, or by the hosted service."""

from __future__ import annotations

from pathlib import Path

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.policies import Policy, policy_name
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.training.adapters import WEIGHTS
from babylon_assets.training.backends.registry import choose_backend

HOSTED = "serverless"


def why_not_loadable(settings: Settings, checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be played from this machine; None when it can."""
    if not is_hosted(settings, checkpoint):
        return why_not_here(checkpoint)
    if settings.training.wandb_api_key is None:
        return "its weights lie with the hosted service, and WANDB_API_KEY is not set"
    return (
        None
        if settings.gate.evaluate_hosted
        else "its weights lie with the hosted service, and EVALUATE_HOSTED is false"
    )


def why_not_here(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint's weights cannot be used on this machine; None when they can."""
    if checkpoint.backend == HOSTED:
        return "its weights lie with the hosted service"
    if not _is_here(checkpoint.base_model):
        return f"the weights of its base model {checkpoint.base_model} are not on this machine"
    if checkpoint.step and not (checkpoint.path and (Path(checkpoint.path) / WEIGHTS).is_file()):
        return "its weights are not kept on this machine any more"
    return None


def is_hosted(settings: Settings, checkpoint: Checkpoint) -> bool:
    """Whether the hosted service has a policy: one that it trained, or a base model that it trains here."""
    if checkpoint.step:
        return checkpoint.backend == HOSTED
    return not _is_here(checkpoint.base_model) and choose_backend(settings).name == HOSTED


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


def load_policy(settings: Settings, checkpoint: Checkpoint) -> Policy:
    """The policy of a checkpoint, ready to answer batches; `why_unplayable` was asked before."""
    if is_hosted(settings, checkpoint):
        from babylon_assets.evaluation.hosted import HostedPolicy

        return HostedPolicy(settings, checkpoint)
    prepare_libraries(settings)
    import torch

    from babylon_assets.serving.engine.engine import Engine

    torch.set_num_threads(settings.training.threads)
    name = policy_name(checkpoint.chain, checkpoint.step)
    engine = Engine(Path(checkpoint.base_model), name)
    if checkpoint.step:
        engine.activate(adapter_of(checkpoint), name)
    return engine
