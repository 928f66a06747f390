"""Three ways to learn from the same windows: the embedded backend, plain ART, and TRL's GRPOTrainer.

Each begins from the same base model with an adapter of the same shape and goes on with its optimizer's moments from
window to window. The rivals get the CPU seconds for their steps that the embedded backend needed for all that it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from babylon_assets.config.settings import Settings
from babylon_assets.domain.samples import Sample
from benchmarks.rivals.samples import RecordedSample
from benchmarks.rivals.trainer_process import run_trainer

#: Answers of a step of TRL: eight groups of eight, about as many as the embedded backend's three rows hold.
TRL_BATCH = 64


class Learner(Protocol):
    """Makes the next adapter from a window.

    Attributes:
        trained: answers that its steps saw, so far.
    """

    trained: int

    @abstractmethod
    def learn(self, step: int, parent: Path | None, groups: list[list[Sample]], seconds: float) -> Path | None:
        """Train checkpoint `step` on groups of answers, in at most so many CPU seconds; None: nothing was learned."""


class EmbeddedLearner:
    """The product's own training, with its trust region; it takes the time that it takes, and notes it."""

    def __init__(self, settings: Settings, base: str) -> None:
        self._settings, self._base = settings, base
        self.trained = 0
        self.seconds: list[float] = []

    def learn(self, step: int, parent: Path | None, groups: list[list[Sample]], seconds: float) -> Path | None:
        from babylon_assets.training.backend import CheckpointPlace, TrainingRequest
        from babylon_assets.training.backends.embedded.in_process import train_embedded
        from babylon_assets.training.folders import checkpoint_folder
        from babylon_assets.training.selection import Selection

        samples = [sample for group in groups for sample in group]
        request = TrainingRequest(
            base_model=self._base,
            chain=self._settings.model_name,
            samples=Selection(samples, [], {}),
            manifest={},
            place=CheckpointPlace(step, parent),
            parent_path=str(parent or ""),
        )
        started = time.process_time()
        train_embedded(self._settings, request)
        self.seconds.append(time.process_time() - started)
        folder = checkpoint_folder(self._settings, self._settings.model_name, step)
        self.trained += len(samples) if folder.is_dir() else 0
        return folder if folder.is_dir() else None


class PlainArtLearner:
    """`plain_art`, at a learning rate of its own."""

    def __init__(self, folder: Path, base: str, rank: int, learning_rate: float) -> None:
        self._folder, self._base, self._rank, self._rate = folder, base, rank, learning_rate
        self.trained = 0

    def learn(self, step: int, parent: Path | None, groups: list[list[Sample]], seconds: float) -> Path | None:
        from benchmarks.rivals.plain_art import PlainStep, train_plainly

        plan = PlainStep(
            base=self._base,
            parent=parent,
            checkpoints=self._folder / "checkpoints",
            step=step,
            rank=self._rank,
            learning_rate=self._rate,
            seconds=seconds,
        )
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            folder = asyncio.run(train_plainly(self._folder, plan, [sample for group in groups for sample in group]))
        self.trained += plan.taken
        return folder


class TrlLearner:
    """`trl_trainer`, at a learning rate of its own, in a process of its own."""

    def __init__(
        self, folder: Path, base: str, rank: int, learning_rate: float, environment: Mapping[str, str]
    ) -> None:
        self._folder, self._environment = folder, environment
        self._work = {"base": base, "rank": rank, "learning_rate": learning_rate, "dtype": "float32", "threads": 1}
        self._work |= {"batch": TRL_BATCH, "gradient_checkpointing": False}
        self.trained = 0

    def learn(self, step: int, parent: Path | None, groups: list[list[Sample]], seconds: float) -> Path | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        to = self._folder / f"{step:04d}"
        whole = groups[: len(groups) // 8 * 8]  # TRL's batches are whole: a rest of fewer groups is not trained on
        work: dict[str, Any] = {**self._work, "seed": step, "seconds": seconds, "adapter_to": str(to)}
        if parent is not None:
            work |= {"adapter_from": str(parent), "optimizer": str(parent / "optimizer.pt")}
        result = run_trainer(self._folder, "trl_trainer", work, _recorded(whole), environment=self._environment)
        self.trained += TRL_BATCH * len(result["steps"])
        return to


def _recorded(groups: Sequence[Sequence[Sample]]) -> list[list[RecordedSample]]:
    return [
        [
            RecordedSample(
                sample.prompt_token_ids or [], sample.token_ids or [], sample.logprobs or [], sample.reward or 0.0
            )
            for sample in group
        ]
        for group in groups
    ]
