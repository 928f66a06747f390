"""Trains in this process, by the embedded backend, and keeps what ART prints out of sight."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from babylon_assets.config.heap import trim_heap
from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.errors import MissingDependency
from babylon_assets.training.backend import TrainingRequest
from babylon_assets.training.backends.embedded.manifest import trainer_settings
from babylon_assets.training.capacity import choose_threads
from babylon_assets.training.folders import art_path
from babylon_assets.training.selection import demonstrations, reward_groups

logger = logging.getLogger(__name__)

#: How often a long imitation says how far it is.
SAY_EVERY_SECONDS = 30.0


def train_embedded(settings: Settings, request: TrainingRequest) -> None:
    """Train on this machine; the checkpoint's folder, at the place that the request names, is the result.

    Raises:
        MissingDependency: torch or ART is not installed.
    """
    prepare_libraries(settings)
    try:
        import torch

        from babylon_assets.training.backends.embedded.art_backend import ArtBackend
        from babylon_assets.training.backends.embedded.trainer import TrainerSettings
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{error.name} is not installed, without which nothing can be trained here; "
            "type: pip install 'babylon_assets[embedded]'"
        ) from error
    torch.set_num_threads(choose_threads(settings, request.base_model))
    random.seed(settings.training.seed)  # ART shuffles groups and packed rows with the global generator
    torch.manual_seed(settings.training.seed)
    trainer = TrainerSettings(**trainer_settings(settings, request.base_model))
    backend = ArtBackend(
        art_path(settings),
        settings=trainer,
        manifest=request.manifest,
        place=request.place,
        samples=request.samples.policy_gradient,
        baselines=request.samples.baselines,
    )
    gc.freeze()  # all that is older than this training, a million objects of libraries, need not be searched after it
    try:
        with _quiet():
            asyncio.run(_train(backend, trainer, settings.training.wandb_project, request))
    finally:
        del backend
        release_memory()


def release_memory() -> None:
    """Give back what a training held, which glibc keeps otherwise: 550 of 970 MB after a step of SmolLM2-135M."""
    gc.collect()
    gc.unfreeze()
    trim_heap()


async def _train(backend: Any, trainer: Any, project: str, request: TrainingRequest) -> None:
    from art import TrainableModel
    from art.types import TrainSFTConfig

    from babylon_assets.training.backends.embedded.algorithm import IMITATION_BATCH
    from babylon_assets.training.backends.embedded.art_backend import longest_row

    model: Any = TrainableModel(name=request.chain, project=project, base_model=request.base_model)
    await backend.register(model)
    if request.samples.method == "sft":
        config = TrainSFTConfig(learning_rate=trainer.learning_rate, batch_size=IMITATION_BATCH)
        started = reported = time.monotonic()
        async for done, step in _numbered(backend._train_sft(model, demonstrations(request.samples.sft), config, {})):
            if time.monotonic() - reported >= SAY_EVERY_SECONDS:
                reported = time.monotonic()
                logger.info(describe_pace(done, int(step["train/num_gradient_steps"]), reported - started))
        return
    samples = request.samples.policy_gradient
    lengths = (len(sample.prompt_token_ids or []) + len(sample.token_ids or []) for sample in samples)
    await backend.train(
        model,
        reward_groups(samples),
        learning_rate=trainer.learning_rate,
        loss_fn="ppo",
        scale_rewards=False,
        epsilon=trainer.clip_epsilon,
        packed_sequence_length=longest_row(lengths, trainer.row_tokens),
    )


async def _numbered(steps: AsyncIterator[dict[str, float]]) -> AsyncIterator[tuple[int, dict[str, float]]]:
    number = 0
    async for step in steps:
        number += 1
        yield number, step


def describe_pace(done: int, total: int, seconds: float) -> str:
    """How far an imitation is, and how long it goes on at the pace of its steps so far."""
    left = seconds / done * (total - done)
    return f"step {done} of {total}, about {left / 60:.0f} min left" if left >= 90 else f"step {done} of {total}"


@contextlib.contextmanager
def _quiet() -> Any:
    """ART prints its progress; it goes to our log at debug level, where it is found and does not disturb."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        for line in filter(str.strip, output.getvalue().splitlines()):
            logger.debug("art: %s", line)
