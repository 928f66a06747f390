"""The embedded backend: ART's LocalBackend with a trainer of our own, on the CPU or on any CUDA device.

ART registers the model, groups, normalises, tokenises and packs; its loss is the loss. What is replaced is the service
that does the optimizer steps: plain transformers and peft in this process, instead of unsloth and vLLM. It serves no
requests, and decides neither what is trained nor which checkpoint is the parent.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from art import TrainableModel, Trajectory, TrajectoryGroup, dev, types
from art.backend import AnyTrainableModel
from art.local.backend import LocalBackend
from art.local.service import ModelService
from art.preprocessing.pack import (
    DiskPackedTensors,
    PackedTensors,
    packed_tensors_from_dir,
    packed_tensors_from_tokenized_results,
)
from art.preprocessing.tokenize import SFTBatch, TokenizedResult
from art.utils.get_model_step import get_step_from_dir
from art.utils.output_dirs import get_model_dir
from transformers import AutoTokenizer

from babylon_assets.domain.chat_tokens import chat_tokens
from babylon_assets.domain.datasets import Sample
from babylon_assets.training.backend import CheckpointPlace
from babylon_assets.training.backends.embedded.algorithm import IMITATION_BATCH, imitation_pass, policy_gradient_pass
from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.recorded_tokens import mixed_steps, tokenized, tokenized_answer


@dataclass(slots=True)
class EmbeddedService:
    """ART's ModelService for one model: reads what ART prepared, takes the steps, writes the next checkpoint."""

    model_name: str
    base_model: str
    config: dev.InternalModelConfig
    output_dir: str
    settings: TrainerSettings
    manifest: dict[str, Any]
    place: CheckpointPlace | None
    several_policies: bool = False

    async def start_openai_server(self, config: dev.OpenAIServerConfig | None) -> tuple[str, int]:
        """Not offered by this backend, which only trains."""
        raise NotImplementedError("the embedded trainer answers no requests: serve its checkpoints with the engine")

    async def vllm_engine_is_sleeping(self) -> bool:
        """There is no vLLM engine, so none is ever in the way."""
        return True

    async def train(
        self,
        disk_packed_tensors: DiskPackedTensors,
        config: types.TrainConfig,
        _config: dev.TrainConfig,
        verbose: bool = False,
    ) -> AsyncIterator[dict[str, float]]:
        """Train on ART's packed rows (`algorithm`); yields the metrics of each step."""
        packed = packed_tensors_from_dir(**disk_packed_tensors)
        rows = {key: value for key, value in packed.items() if isinstance(value, torch.Tensor)}
        place = self._place()
        trainer = Trainer(self.base_model, place.parent, self.settings)
        steps = policy_gradient_pass(
            trainer,
            rows,
            self.settings.rows_per_step,
            _config,
            self.several_policies,
            passes=self.settings.passes,
        )
        for metrics in steps:
            yield metrics
        if trainer.has_learned:
            trainer.save(self._checkpoints, place.step, self.manifest)

    async def train_sft(
        self, batches: list[SFTBatch], config: types.TrainSFTConfig, verbose: bool = False
    ) -> AsyncIterator[dict[str, float]]:
        """Imitate, weighted (`algorithm`); yields the metrics of each step."""
        place = self._place()
        trainer = Trainer(self.base_model, place.parent, self.settings)
        for metrics in imitation_pass(trainer, batches, passes=self.settings.imitation_passes or self.settings.passes):
            yield metrics
        trainer.save(self._checkpoints, place.step, self.manifest)

    def _place(self) -> CheckpointPlace:
        if self.place is not None:
            return self.place
        newest = int(get_step_from_dir(self.output_dir))
        return CheckpointPlace(newest + 1, self._checkpoints / f"{newest:04d}" if newest else None)

    @property
    def _checkpoints(self) -> Path:
        return Path(self.output_dir) / "checkpoints"


class ArtBackend(LocalBackend):  # type: ignore[misc]
    """ART's LocalBackend whose model service trains in this process.

    Args:
        path: folder under which ART keeps `<project>/models/<name>/checkpoints/<step>`.
        settings: how the trainer steps.
        manifest: what the next checkpoint is made from; written into it.
        place: where the next checkpoint stands; None: after the newest one in the model's folder.
        samples: the recorded answers behind the groups that are trained; None: ART finds the tokens in the texts.
        baselines: what the answers of some of the groups are compared with, as of `samples.Selection`.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: TrainerSettings,
        manifest: dict[str, Any],
        place: CheckpointPlace | None = None,
        samples: Sequence[Sample] | None = None,
        baselines: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(in_process=True, path=str(path))
        self._settings = settings
        self._manifest = manifest
        self._place = place
        self._samples = samples
        self._baselines = baselines
        self._supports_result_packing = True
        self._packed_sequence_length_requires_chunk_alignment = False

    async def _get_service(self, model: TrainableModel) -> ModelService:
        if model.name not in self._services:
            self._services[model.name] = EmbeddedService(
                model_name=model.name,
                base_model=model.base_model,
                config={},
                output_dir=get_model_dir(model=model, art_path=self._path),
                settings=self._settings,
                manifest=self._manifest,
                place=self._place,
                several_policies=len({sample.policy for sample in self._samples or ()}) > 1,
            )
        return self._services[model.name]

    def _get_packed_tensors(
        self, model: AnyTrainableModel, trajectory_groups: list[TrajectoryGroup], *arguments: Any, **named: Any
    ) -> PackedTensors | None:
        """ART's packing, of the recorded tokens where they are known."""
        if self._samples is None:
            return cast(
                "PackedTensors | None", super()._get_packed_tensors(model, trajectory_groups, *arguments, **named)
            )
        results = list(tokenized(self._samples, self._baselines))
        if not results:
            return None
        return packed_tensors_from_tokenized_results(
            results, named["packed_sequence_length"], pad_token_id=0, truncate_long_results=False
        )

    async def _train_sft(
        self,
        model: AnyTrainableModel,
        trajectories: Iterable[Trajectory],
        config: types.TrainSFTConfig,
        dev_config: dev.TrainSFTConfig,
        verbose: bool = False,
    ) -> AsyncIterator[dict[str, float]]:
        """ART's own needs unsloth to find the answer's tokens; ours takes them from the chat template.

        A trajectory's reward is its weight; its last message is the answer that is imitated. Answers of a group share
        the tokens that their prompts begin with, as those of a policy gradient do.
        """
        tokenizer = AutoTokenizer.from_pretrained(model.base_model)
        size = config.batch_size if isinstance(config.batch_size, int) else IMITATION_BATCH
        learning_rate = config.learning_rate if isinstance(config.learning_rate, float) else config.learning_rate[0]
        steps = mixed_steps([_imitated(tokenizer, shown) for shown in trajectories], size)
        batches = [_imitation_batch(step, self._settings.row_tokens, learning_rate) for step in steps]
        service = await self._get_service(model)
        async for metrics in service.train_sft(batches, config, verbose):
            yield metrics


def _imitated(tokenizer: Any, trajectory: Trajectory) -> tuple[str, TokenizedResult]:
    """An answer to imitate and its group."""
    prompt, answer = encode_turns(tokenizer, trajectory.messages_and_choices, trajectory.tools)
    result = tokenized_answer(prompt, answer, [math.nan] * len(answer), trajectory.reward)
    return str(trajectory.metadata.get("group", "")), result


def _imitation_batch(results: list[TokenizedResult], row_tokens: int, learning_rate: float) -> SFTBatch:
    """The answers of a step in packed rows, each weighed by its advantage."""
    lengths = [len(result.token_ids) for result in results]
    packed = packed_tensors_from_tokenized_results(
        results, longest_row(lengths, row_tokens), pad_token_id=0, truncate_long_results=False
    )
    rows = {name: value for name, value in packed.items() if isinstance(value, torch.Tensor)}
    return SFTBatch(
        trajectory_tensors=[rows],
        learning_rate=learning_rate,
        num_trajectories=len(results),
        num_tokens=sum(lengths),
        num_trainable_tokens=int(rows["assistant_mask"].sum()),
    )


def encode_turns(tokenizer: Any, messages: list[Any], tools: Any = None) -> tuple[list[int], list[int]]:
    """Token ids of a conversation up to where its last message begins, and of that answer with its end of turn.

    Raises:
        InexpressibleError: the chat template has no form for it.
    """
    tokens, before, answer = chat_tokens(tokenizer), messages[:-1], messages[-1]
    plain = answer.keys() <= {"role", "content"}
    written = tokens.answer(answer["content"]) if plain else tokens.turn(before, answer, tools)
    return tokens.prompt(before, tools), [*written, int(tokenizer.eos_token_id)]


def longest_row(lengths: Iterable[int], row_tokens: int) -> int:
    """Length of packed rows that holds the longest sample: `row_tokens`, or the next multiple of 256 above it."""
    longest = max(lengths, default=0)
    return row_tokens if longest <= row_tokens else 256 * math.ceil(longest / 256)
