"""The optimizer steps of the embedded backend: a model with its adapter, one step at a time.

Two kinds of step: ART's policy-gradient loss over packed rows, and weighted imitation of answers. The order of
the steps and the formulas are in `algorithm`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from art import dev
from art.loss import Loss, loss_fn, shift_tensor
from art.preprocessing.inputs import TrainInputs

from babylon_assets.training.adapters import compute_layers_again, load_trainable, restore_optimizer, write_checkpoint
from babylon_assets.training.backends.embedded.sure_tokens import hold_sure_tokens
from babylon_assets.training.logprobs import packed_attention_mask, token_logprobs
from babylon_assets.training.sequence_packing import compacted, parts, without_padding
from babylon_assets.training.step_memory import LEAST_TOKENS, available_bytes, kept_tokens


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How the embedded trainer steps; everything here is part of a checkpoint's identity."""

    learning_rate: float = 1.5e-3
    lora_rank: int = 32
    row_tokens: int = 1024
    rows_per_step: int = 3
    clip_epsilon: float = 0.2
    max_grad_norm: float = 0.2
    max_kl: float = 0.005
    seed: int = 0
    dtype: str = "float32"
    sure_weight: float = 0.0
    passes: int = 1
    imitation_passes: int | None = None  # None: as many as `passes`


class _Probe(NamedTuple):
    """A row of packed tokens, and the log-probabilities that the parent gives its trained tokens."""

    rows: dict[str, torch.Tensor]
    logprobs: torch.Tensor


class Trainer:
    """A model with its adapter and optimizer, as a checkpoint left them; None begins a new adapter."""

    def __init__(self, base_model: str, parent: Path | None, settings: TrainerSettings) -> None:
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load_trainable(
            base_model,
            parent,
            rank=settings.lora_rank,
            seed=settings.seed,
            device=self._device,
            dtype=settings.dtype,
        )
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        restore_optimizer(self._model, self._optimizer, parent)
        self._step_tokens = max(LEAST_TOKENS, kept_tokens(base_model, settings.dtype))
        self._kept_tokens = kept_tokens(base_model, settings.dtype, available_bytes())
        self._steps: list[dict[str, float]] = []
        self._before: tuple[list[torch.Tensor], dict[str, Any]] | None = None
        self._first_kl = 0.0
        self._probe: _Probe | None = None

    def kl_to_behaviour(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> float:
        """How far the policy is from those that answered, by Schulman's k3 over the rows' trained tokens, in nats."""
        return self._seen(rows, config)["kl_to_behaviour"]

    def policy_gradient_step(
        self,
        rows: dict[str, torch.Tensor],
        config: dev.TrainConfig,
        before: float | None = None,
        *,
        again: bool = False,
    ) -> dict[str, float] | None:
        """One optimizer step of ART's loss; None, and the step before it undone, when that one went too far.

        Args:
            rows: ART's packed tensors, each [rows, length]: tokens, group_ids, parent_ids, input_pos,
                assistant_mask, logprobs (NaN where unknown), advantages, weights.
            config: ART's loss settings.
            before: the rows' `kl_to_behaviour` before any step; None: as that of the first rows.
            again: whether an earlier step saw the same rows, which the step's metrics then say.

        Returns:
            Metrics of the step, see `_policy_gradient_metrics`.
        """
        started = time.perf_counter()
        loss, metrics = self._accumulate(rows, config)
        if self._probe is None:
            self._probe = self._probed(rows, config)
        if not self._steps:
            self._first_kl = metrics["kl_to_behaviour"]
        elif self._is_too_far(metrics, before):
            self._undo()
            return None
        self._before = self._state()
        noted = self._updated(loss, metrics, started, again)
        noted["kl_to_parent"] = self._kl_to_parent(config)
        noted["seconds"] = time.perf_counter() - started
        return noted

    def _is_too_far(self, metrics: dict[str, float], before: float | None) -> bool:
        allowed = (self._first_kl if before is None else before) + self._settings.max_kl
        return metrics["kl_to_behaviour"] > allowed

    def undo_if_too_far(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> bool:
        """Look at the first rows once more after the last step, and undo it when it went too far; says whether."""
        too_far = self._is_too_far(self._seen(rows, config), None)
        if too_far:
            self._undo()
        return too_far

    def retry_smaller(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> dict[str, float] | None:
        """After a pass without a kept step: the step again at half its size; None when that goes too far as well."""
        for group in self._optimizer.param_groups:
            group["lr"] /= 2
        metrics = self.policy_gradient_step(rows, config)
        return None if metrics is None or self.undo_if_too_far(rows, config) else metrics

    def _probed(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> _Probe:
        """The first of some rows, as the parent sees it: to be called before the first step."""
        first = {key: tensor[:1] for key, tensor in rows.items()}
        return _Probe(first, self._logprobs(first, config))

    def _kl_to_parent(self, config: dev.TrainConfig) -> float:
        """How far the policy is from its parent after a step, by the tokens of one row that both were shown."""
        assert self._probe is not None
        return _k3(self._logprobs(self._probe.rows, config) - self._probe.logprobs)

    def _accumulate(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> tuple[float, dict[str, float]]:
        """The mean loss of some rows, whose gradient the parameters have then, and what is to be said of the rows.

        Gradients are summed over parts of at most `step_memory.kept_tokens` tokens, or `LEAST_TOKENS`.
        """
        self._optimizer.zero_grad(set_to_none=True)
        whole = float(shift_tensor(rows["assistant_mask"], False).sum())
        loss_of_all, seen = 0.0, list[dict[str, float]]()
        for loss, metrics, _ in self._looks(rows, config):
            loss_of_part = loss.policy_loss * (metrics["tokens"] / whole)
            loss_of_part.backward()
            loss_of_all += float(loss_of_part.detach())
            seen.append(metrics)
        return loss_of_all, _merged(seen)

    def _seen(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> dict[str, float]:
        with torch.no_grad():
            return _merged([metrics for _, metrics, _ in self._looks(rows, config)])

    def _logprobs(self, rows: dict[str, torch.Tensor], config: dev.TrainConfig) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([logprobs for _, _, logprobs in self._looks(rows, config)])

    def _looks(
        self, rows: dict[str, torch.Tensor], config: dev.TrainConfig
    ) -> Iterator[tuple[Loss, dict[str, float], torch.Tensor]]:
        """One look after the other at parts of some rows, each of few enough tokens for the memory."""
        held = hold_sure_tokens(compacted(rows), self._settings.sure_weight)
        return (self._look(inputs, config) for inputs in self._parts(held))

    def _parts(self, rows: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """The rows on the device, some at a time: of few enough tokens for the memory."""
        count, length = rows["tokens"].shape
        for part in parts(count, max(1, self._step_tokens // length)):
            held = without_padding({key: value[part] for key, value in rows.items()})
            yield {key: value.to(self._device) for key, value in held.items()}

    def _look(
        self, inputs: dict[str, torch.Tensor], config: dev.TrainConfig
    ) -> tuple[Loss, dict[str, float], torch.Tensor]:
        """The loss of some rows under the policy as it is, what is to be said of it, and its log-probabilities."""
        answer_mask, logprobs, entropies = self._scored(inputs)
        loss = loss_fn(cast(TrainInputs, inputs), logprobs, None, None, config)
        metrics = _policy_gradient_metrics(inputs, logprobs.detach(), answer_mask, loss, self._settings.clip_epsilon)
        metrics["entropy"] = float(entropies.detach()[answer_mask].mean())
        return loss, metrics, logprobs.detach()[answer_mask]

    def _scored(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which positions of some rows predict an answer's token, and its log-probability and entropy there."""
        answer_mask = shift_tensor(inputs["assistant_mask"], False)
        mask = packed_attention_mask(inputs["group_ids"], inputs["parent_ids"])
        with self._computing(inputs["tokens"]):
            return answer_mask, *token_logprobs(self._model, inputs["tokens"], mask, inputs["input_pos"], answer_mask)

    def _computing(self, tokens: torch.Tensor) -> torch.autocast:
        """Matrix products in bf16 when the settings say so; the adapter, its gradient and every sum stay fp32.

        As many layers are computed again in the backward pass as have activations that are too many to keep.
        """
        compute_layers_again(self._model, max(0.0, 1 - self._kept_tokens / tokens.numel()))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.dtype == "bfloat16")

    def _state(self) -> tuple[list[torch.Tensor], dict[str, Any]]:
        weights = [parameter.detach().clone() for parameter in self._parameters]
        return weights, copy.deepcopy(self._optimizer.state_dict())

    def _undo(self) -> None:
        """Go back to before the last step. It stays among the steps, marked as undone: its tokens were seen."""
        assert self._before is not None
        weights, optimizer = self._before
        with torch.no_grad():
            for parameter, kept in zip(self._parameters, weights, strict=True):
                parameter.copy_(kept)
        self._optimizer.load_state_dict(optimizer)
        self._steps[-1]["undone"] = 1.0

    def imitation_step(self, rows: dict[str, torch.Tensor], *, again: bool = False) -> dict[str, float]:
        """One optimizer step of weighted imitation: the weighted mean of -log p over the answers' tokens.

        Gradients are summed over parts, as of `_accumulate`.

        Args:
            rows: packed tensors as of `policy_gradient_step`; `advantages` say how much each answer counts.
            again: as of `policy_gradient_step`.
        """
        started = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        whole = (rows["advantages"] * rows["assistant_mask"]).sum().clamp(min=1e-6)
        loss, seen = 0.0, []
        for inputs in self._parts(compacted(rows)):
            answer_mask, logprobs, entropies = self._scored(inputs)
            weights = shift_tensor(inputs["advantages"], 0.0)
            loss_of_part = -(logprobs * weights)[answer_mask].sum() / whole
            loss_of_part.backward()
            loss += float(loss_of_part.detach())
            seen.append(torch.stack([logprobs.detach()[answer_mask], entropies.detach()[answer_mask]]))
        chosen = torch.cat(seen, dim=1)
        logprob, entropy = chosen.mean(dim=1).tolist()
        metrics = {"tokens": float(chosen.shape[1]), "entropy": entropy, "logprob_mean": logprob}
        return self._updated(loss, metrics, started, again)

    @property
    def has_learned(self) -> bool:
        """Whether any step was taken and kept."""
        return any("undone" not in step for step in self._steps)

    def save(self, checkpoints: Path, step: int, manifest: dict[str, Any]) -> Path:
        """Write what was trained as checkpoint `step`, with its manifest and the metrics of its steps."""
        return write_checkpoint(
            self._model, self._optimizer, manifest=manifest, steps=self._steps, checkpoints=checkpoints, step=step
        )

    def _updated(self, loss: float, metrics: dict[str, float], started: float, again: bool) -> dict[str, float]:
        """Let the optimizer take the step that the gradients say, and note it."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm)
        self._optimizer.step()
        self._steps.append(
            {
                "loss": loss,
                "grad_norm": float(norm),
                **metrics,
                "seconds": time.perf_counter() - started,
                **({"again": 1.0} if again else {}),
            }
        )
        return self._steps[-1]


def _k3(difference: torch.Tensor) -> float:
    """Schulman's k3 estimate of KL(p || q) in nats, from log q - log p of tokens that p drew."""
    return float((difference.exp() - 1 - difference).mean())


def _merged(seen: Sequence[dict[str, float]]) -> dict[str, float]:
    """What is to be said of rows that were looked at in parts: means over their tokens."""
    if len(seen) == 1:
        return seen[0]
    whole = sum(part["tokens"] for part in seen)
    means = {name: sum(part[name] * part["tokens"] for part in seen) / whole for name in seen[0]}
    extremes = {"ratio_min": min, "ratio_max": max}
    return means | {name: pick(part[name] for part in seen) for name, pick in extremes.items()} | {"tokens": whole}


def _policy_gradient_metrics(
    inputs: dict[str, torch.Tensor], logprobs: torch.Tensor, mask: torch.Tensor, loss: Loss, epsilon: float
) -> dict[str, float]:
    """Means over the trained tokens; `kl_to_behaviour` estimates KL(behaviour || policy)."""
    recorded = shift_tensor(inputs["logprobs"], float("nan"))[mask]
    difference = torch.nan_to_num(logprobs[mask] - recorded)
    ratio = difference.exp()
    return {
        "tokens": float(mask.sum()),
        "kl_to_behaviour": _k3(difference),
        "ratio_mean": float(ratio.mean()),
        "ratio_min": float(ratio.min()),
        "ratio_max": float(ratio.max()),
        "clipped_share": float(((ratio - 1).abs() > epsilon).float().mean()),
        "probs_correlation": float(loss.probs_corr.detach()),
    }
