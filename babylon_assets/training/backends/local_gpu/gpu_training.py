"""The local GPU backend: ART's own LocalBackend with unsloth and vLLM, in a process of its own.

The process (`gpu_process`) is started for one training and ends with it, so that all GPU memory is free again and what
dies in there takes nothing along. What is asked and what came of it are two JSON files:

    request.json   base model, chain, samples, parent's folder, settings of the training
    result.json    the checkpoint's folder and the metrics of its steps, or an error with its kind

It works in a folder of its own; what it made enters the chain's folder whole, as every checkpoint does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from babylon_assets.config.settings import Settings, local_gpu_environment
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.errors import BabylonError, MissingDependency, PermanentError, TransientError
from babylon_assets.training.adapters import publish_checkpoint
from babylon_assets.training.backend import TrainingRequest
from babylon_assets.training.capacity import MOST_RANK
from babylon_assets.training.folders import art_path, checkpoint_folder

REQUEST, RESULT, LOG = "request.json", "result.json", "log.txt"
PROGRAM = "babylon_assets.training.backends.local_gpu.gpu_process"
#: Characters of the process's last words that an error repeats.
TAIL = 600


class GpuRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is asked to do.

    Attributes:
        method: `policy_gradient` or `sft`.
        baselines: as of `samples.Selection`.
        step: the checkpoint's number; parent: the folder of the one before, None for a new adapter.
        work: the folder in which ART may write.
        trainer: as of `trainer_settings`.
        memory_share: what vLLM may take of the GPU's memory.
    """

    base_model: str
    chain: str
    project: str
    method: str
    samples: list[Sample]
    step: int
    parent: str | None
    work: str
    trainer: dict[str, Any]
    memory_share: float
    baselines: dict[str, float] = {}

    @property
    def row_limit(self) -> int:
        """The longest row that unsloth and vLLM are made for, in tokens."""
        return max(2048, int(self.trainer["row_tokens"]))


class GpuResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: a checkpoint's folder and its steps, or what went wrong.

    Attributes:
        checkpoint: None when no token was trained on, or with an error.
        error: `no_cuda`, `missing`, `out_of_memory` or `failed`; None when it went well.
    """

    checkpoint: str | None = None
    steps: list[dict[str, float]] = []
    error: str | None = None
    message: str = ""


def trainer_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a checkpoint becomes, as they are written into its manifest."""
    return {
        "learning_rate": settings.local_gpu.learning_rate,
        "lora_rank": settings.embedded.lora_rank or MOST_RANK,
        "row_tokens": settings.local_gpu.row_tokens,
        "clip_epsilon": settings.embedded.clip_epsilon,
        "max_grad_norm": settings.embedded.max_grad_norm,
        "seed": settings.training.seed,
    }


def train_local_gpu(settings: Settings, request: TrainingRequest) -> None:
    """Train on this machine's GPU; the checkpoint's folder, at the place that the request names, is the result.

    Raises:
        MissingDependency: ART's backend extra is not installed, or there is no CUDA device.
        PermanentError: the GPU's memory does not suffice, or ART failed.
        TransientError: the process ended without a word, or took longer than LOCAL_GPU_MINUTES.
    """
    assert request.place is not None
    folder = art_path(settings) / ".local_gpu"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{request.chain}-", dir=folder) as work:
        (Path(work) / REQUEST).write_bytes(msgspec.json.encode(_request_file(settings, request, Path(work))))
        result = _run(settings, Path(work))
        if result.error is not None:
            raise error_of(result)
        if result.checkpoint is not None:
            final = checkpoint_folder(settings, request.chain, request.place.step)
            publish_checkpoint(Path(result.checkpoint), request.manifest, result.steps, final)


def _request_file(settings: Settings, request: TrainingRequest, work: Path) -> GpuRequest:
    assert request.place is not None
    return GpuRequest(
        base_model=request.base_model,
        chain=request.chain,
        project=settings.training.wandb_project,
        method=request.samples.method,
        samples=request.samples.policy_gradient or request.samples.sft,
        baselines=dict(request.samples.baselines),
        step=request.place.step,
        parent=str(request.place.parent.absolute()) if request.place.parent else None,
        work=str(work.absolute()),
        trainer=trainer_settings(settings),
        memory_share=settings.local_gpu.memory_share,
    )


def _run(settings: Settings, work: Path) -> GpuResult:
    """Run the process to its end and read what it left."""
    command = [sys.executable, "-m", PROGRAM, str(work / REQUEST), str(work / RESULT)]
    with (work / LOG).open("wb") as log:
        process = subprocess.Popen(
            command, env=local_gpu_environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(60 * settings.local_gpu.minutes)
        except subprocess.TimeoutExpired:
            raise TransientError(
                f"training on the GPU took longer than the {settings.local_gpu.minutes:g} minutes of LOCAL_GPU_MINUTES "
                f"and was ended: {_tail(work)}"
            ) from None
        finally:
            _end(process)
    if not (work / RESULT).is_file():
        raise TransientError(
            f"the process that trained on the GPU ended with {process.returncode} and without a word: {_tail(work)}"
        )
    return msgspec.json.decode((work / RESULT).read_bytes(), type=GpuResult)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and of those that it started, vLLM's among them."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(work: Path) -> str:
    return " ".join((work / LOG).read_text(errors="replace").split())[-TAIL:] or "it printed nothing"


def error_of(result: GpuResult) -> BabylonError:
    """The process's error as one of ours, with what to do."""
    tail = result.message[-TAIL:]
    if result.error == "out_of_memory":
        return PermanentError(
            f"the GPU's memory does not suffice ({tail}); lower LOCAL_GPU_ROW_TOKENS or LOCAL_GPU_MEMORY_SHARE, or set "
            "BASE_MODEL to a smaller model"
        )
    if result.error == "no_cuda":
        return MissingDependency(f"there is no CUDA device that torch can use ({tail}); set TRAINING_BACKEND=embedded")
    if result.error == "missing":
        return MissingDependency(
            f"ART's GPU backend is not installed ({tail}); type: pip install 'babylon_assets[gpu]' in an environment "
            "of its own, or set TRAINING_BACKEND=embedded"
        )
    return PermanentError(f"ART could not train on the GPU: {tail}; correct what it names, then train the window again")
