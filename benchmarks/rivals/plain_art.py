"""ART's LocalBackend as it comes, with its optimizer steps taken by plain torch: no packing, no trust region.

ART's own are the groups, the advantages (divided by their group's standard deviation), the tokens, the padding of each
answer to 2,048 tokens, the loss (`cispo`) with its defaults, and the settings of `art.dev.get_model_config`: a step per
answer, AdamW with betas 0.9 and 0.99 and a weight decay of 0.1, gradients cut to a norm of 0.1. The pass through the
model, which ART does by unsloth on a GPU, is plain transformers here. The adapter's shape and the learning rate are
given.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from art import TrainableModel, dev, types
from art.local.backend import LocalBackend
from art.local.service import ModelService
from art.loss import loss_fn, shift_tensor
from art.preprocessing.inputs import TrainInputs
from art.preprocessing.pack import DiskPackedTensors, packed_tensors_from_dir

from babylon_assets.training.adapters import load_trainable, restore_optimizer, write_checkpoint
from babylon_assets.training.logprobs import packed_attention_mask, token_logprobs
from babylon_assets.training.selection import trajectory_groups

if TYPE_CHECKING:
    from babylon_assets.domain.samples import Sample

BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.99), 0.1, 0.1


@dataclass(slots=True, kw_only=True)
class PlainStep:
    """One window's training: from which adapter, to which checkpoint, and how long.

    Attributes:
        seconds: on a CPU, after which no further step is begun.
        taken: how many steps were taken.
    """

    base: str
    parent: Path | None
    checkpoints: Path
    step: int
    rank: int
    learning_rate: float
    seconds: float
    taken: int = field(default=0, init=False)


async def train_plainly(folder: Path, plan: PlainStep, samples: Sequence[Sample]) -> Path:
    """Train a window's samples as `LocalBackend.train` does with its defaults; gives the checkpoint's folder."""
    backend = _PlainBackend(folder, plan)
    model: Any = TrainableModel(name="plain", project="bench", base_model=plan.base)
    await backend.register(model)
    await backend.train(model, trajectory_groups(samples), learning_rate=plan.learning_rate)
    return plan.checkpoints / f"{plan.step:04d}"


class _PlainBackend(LocalBackend):  # type: ignore[misc]
    def __init__(self, folder: Path, plan: PlainStep) -> None:
        super().__init__(in_process=True, path=str(folder))
        self._plan = plan

    async def _get_service(self, model: TrainableModel) -> ModelService:
        return _PlainService(self._plan)


@dataclass(slots=True)
class _PlainService:
    """ART's ModelService: reads what ART prepared, takes the steps, writes the next checkpoint."""

    plan: PlainStep

    async def start_openai_server(self, config: dev.OpenAIServerConfig | None) -> tuple[str, int]:
        raise NotImplementedError("the bench's service only trains")

    async def vllm_engine_is_sleeping(self) -> bool:
        return True

    async def train(
        self,
        disk_packed_tensors: DiskPackedTensors,
        config: types.TrainConfig,
        _config: dev.TrainConfig,
        verbose: bool = False,
    ) -> AsyncIterator[dict[str, float]]:
        packed = packed_tensors_from_dir(**disk_packed_tensors)
        rows = {name: value for name, value in packed.items() if isinstance(value, torch.Tensor)}
        plan = self.plan
        model = load_trainable(
            plan.base, plan.parent, rank=plan.rank, seed=0, device=torch.device("cpu"), dtype="float32"
        )
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=config.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
        restore_optimizer(model, optimizer, plan.parent)
        started = time.process_time()
        for number in range(len(rows["tokens"])):
            if time.process_time() - started > plan.seconds:
                break
            row = {name: value[number : number + 1] for name, value in rows.items()}
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(model, row, _config)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learned, MAX_GRAD_NORM)
            optimizer.step()
            plan.taken += 1
            yield {"loss": float(loss.detach())}
        write_checkpoint(model, optimizer, manifest={}, steps=[], checkpoints=plan.checkpoints, step=plan.step)

    def train_sft(self, *arguments: Any, **named: Any) -> AsyncIterator[dict[str, float]]:
        raise NotImplementedError("the bench's service trains by policy gradient")


def _loss(model: Any, row: dict[str, torch.Tensor], config: dev.TrainConfig) -> torch.Tensor:
    mask = packed_attention_mask(row["group_ids"], row["parent_ids"])
    chosen = shift_tensor(row["assistant_mask"], False)
    logprobs, _ = token_logprobs(model, row["tokens"], mask, row["input_pos"], chosen)
    loss: torch.Tensor = loss_fn(cast(TrainInputs, row), logprobs, None, None, config).policy_loss
    return loss
