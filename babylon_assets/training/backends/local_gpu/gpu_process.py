"""The process that trains on a local GPU: `python -m` with the name of this module, then REQUEST and RESULT.

ART's LocalBackend: unsloth takes the steps, and vLLM, which it starts and puts to sleep, is ended with it.
Answers to imitate go through our own steps instead, because ART's weigh none. Whatever happens here is written into the
result with its kind; how that is told to a person is decided in `local_gpu`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from babylon_assets.domain.errors import explain_failure
from babylon_assets.training.adapters import TARGETS
from babylon_assets.training.backends.local_gpu.gpu_training import GpuRequest, GpuResult

#: prctl's "send me this signal when my parent dies": a killed run leaves no process behind that holds the GPU.
_PARENT_DEATH_SIGNAL = 1


def main(arguments: list[str]) -> None:
    """Train as the request says, and write the result; by a rename, so that it is whole or not there."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    request = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=GpuRequest)
    result = attempt(request)
    aside = Path(f"{arguments[1]}.new")
    aside.write_bytes(msgspec.json.encode(result))
    aside.rename(arguments[1])


def attempt(request: GpuRequest) -> GpuResult:
    """Train; an error of whatever kind becomes the result."""
    try:
        _require_cuda()
        return _train(request)
    except ModuleNotFoundError as error:
        return GpuResult(error="missing", message=f"no module {error.name}")
    except _NoCuda as error:
        return GpuResult(error="no_cuda", message=str(error))
    except Exception as error:  # ART, unsloth, vLLM and the driver raise whatever they like; all of it is handed on
        kind = "out_of_memory" if is_out_of_memory(error) else "failed"
        return GpuResult(error=kind, message=explain_failure(error))


class _NoCuda(Exception):
    pass


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise _NoCuda(f"torch {torch.__version__} is built for {'CUDA ' + built if built else 'the CPU only'}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is the GPU's memory running out; vLLM says so in words only."""
    text = f"{type(error).__name__} {error}".lower()
    if "out of memory" in text or "outofmemory" in text or "no available memory for the cache" in text:
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_out_of_memory(cause)


def _train(request: GpuRequest) -> GpuResult:
    import torch

    random.seed(request.trainer["seed"])  # ART shuffles groups and packed rows with the global generator
    torch.manual_seed(request.trainer["seed"])
    checkpoints = Path(request.work) / request.project / "models" / request.chain / "checkpoints"
    if request.parent is not None:
        shutil.copytree(request.parent, checkpoints / f"{request.step - 1:04d}")
    steps = asyncio.run(_train_on_answers(request) if request.method == "sft" else _with_art(request))
    folder = checkpoints / f"{request.step:04d}"
    if not steps or not folder.is_dir():
        return GpuResult()
    return GpuResult(checkpoint=str(folder), steps=_steps(request, steps))


async def _with_art(request: GpuRequest) -> list[dict[str, float]]:
    """ART's own policy-gradient pass; gives what it says of each step."""
    from art import TrainableModel
    from art.local.backend import LocalBackend
    from art.types import TrainConfig
    from art.unsloth.service import UnslothService

    from babylon_assets.training.selection import trajectory_groups

    model: Any = TrainableModel(name=request.chain, project=request.project, base_model=request.base_model)
    backend = LocalBackend(in_process=True, path=request.work)
    folder = Path(request.work) / request.project / "models" / request.chain
    backend._services[model.name] = UnslothService(
        model.name, request.base_model, internal_config(request, folder), str(folder)
    )
    trainer = request.trainer
    dev: Any = {"ppo": True, "epsilon": trainer["clip_epsilon"], "scale_rewards": False}
    dev["packed_sequence_length"] = trainer["row_tokens"]
    config = TrainConfig(learning_rate=trainer["learning_rate"])
    steps: list[dict[str, float]] = []
    groups = trajectory_groups(request.samples, request.baselines)
    try:
        await model.register(backend)
        async for step in backend._train_model(model, groups, config, dev):
            steps.append({name: float(value) for name, value in step.items() if isinstance(value, int | float)})
    finally:
        await backend.close()
    return steps if steps and steps[-1].get("data/step_trainer_tokens") else []


def internal_config(request: GpuRequest, folder: Path) -> Any:
    """ART's defaults for a model, with our rank, seed, bound of the gradient's norm and share of the memory.

    ART's own function for them, `dev.get_model_config`, cannot be imported without its Megatron extra (0.5.18), which
    asks for another numpy than we do; so the service gets its configuration from here.
    """
    trainer = request.trainer
    rank = trainer["lora_rank"]
    return {
        "init_args": {"load_in_4bit": True, "max_seq_length": request.row_limit, "model_name": request.base_model},
        "peft_args": {
            "lora_alpha": rank,
            "r": rank,
            "random_state": trainer["seed"],
            "target_modules": list(TARGETS),
            "use_gradient_checkpointing": "unsloth",
        },
        "engine_args": {
            "enable_sleep_mode": True,
            "generation_config": "vllm",
            "gpu_memory_utilization": request.memory_share,
            "lora_target_modules": list(TARGETS),
            "max_lora_rank": max(16, 2 ** (rank - 1).bit_length()),
            "max_model_len": request.row_limit,
            "model": request.base_model,
        },
        "rollout_weights_mode": "lora",
        "trainer_args": {
            "adam_beta1": 0.9,
            "adam_beta2": 0.99,
            "disable_tqdm": True,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": True,
            "learning_rate": trainer["learning_rate"],
            "logging_steps": 1,
            "lr_scheduler_type": "constant",
            "max_grad_norm": trainer["max_grad_norm"],
            "num_generations": 2,
            "optim": "paged_adamw_8bit",
            "output_dir": str(folder),
            "per_device_train_batch_size": 2,
            "report_to": "none",
            "save_strategy": "no",
            "weight_decay": 0.1,
        },
    }


async def _train_on_answers(request: GpuRequest) -> list[dict[str, float]]:
    """Weighted imitation by the embedded trainer, which runs on the GPU that torch sees."""
    from art import TrainableModel
    from art.types import TrainSFTConfig

    from babylon_assets.training.backend import CheckpointPlace
    from babylon_assets.training.backends.embedded.algorithm import IMITATION_BATCH
    from babylon_assets.training.backends.embedded.art_backend import ArtBackend
    from babylon_assets.training.backends.embedded.trainer import TrainerSettings
    from babylon_assets.training.selection import demonstrations

    trainer = request.trainer
    names = ("learning_rate", "lora_rank", "max_grad_norm", "seed")
    settings = TrainerSettings(**{name: trainer[name] for name in names})
    place = CheckpointPlace(request.step, Path(request.parent) if request.parent else None)
    backend = ArtBackend(Path(request.work), settings=settings, manifest={}, place=place)
    model: Any = TrainableModel(name=request.chain, project=request.project, base_model=request.base_model)
    await backend.register(model)
    config = TrainSFTConfig(learning_rate=settings.learning_rate, batch_size=IMITATION_BATCH)
    return [step async for step in backend._train_sft(model, demonstrations(request.samples), config, {})]


def _steps(request: GpuRequest, steps: list[dict[str, float]]) -> list[dict[str, float]]:
    """The steps under our names of metrics; ART says how many tokens a pass saw, not a step."""
    from babylon_assets.training.backends.serverless.hosted_training import steps_of

    if request.method == "sft":
        return steps
    tokens = sum(len(sample.token_ids or []) for sample in request.samples)
    return steps_of([{k: v for k, v in step.items() if k != "data/step_trainer_tokens"} for step in steps], tokens)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # threads of vLLM's client may wait for ever; the result is written
