"""The tensors of an optimizer step in three layouts, and tokens per second of each: packed with shared prompts, padded
to a length as ART's LocalBackend pads, padded to the longest as TRL pads. Of which models is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from babylon_assets.training.backends.embedded import trainer
from babylon_assets.training.backends.embedded.trainer import Trainer
from babylon_assets.training.sequence_packing import compacted

GROUPS_OF = 8
PROMPT, ANSWER = 200, 24
PPO: Any = {"ppo": True, "epsilon": 0.2}


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors of one optimizer step in some layout, and the trajectory tokens that it trains on.

    Attributes:
        ours: whether the trainer lays the rows out anew, as it does; the others are computed on as they are.
    """

    rows: dict[str, torch.Tensor]
    tokens: int
    ours: bool


def groups_of_eight(count: int, vocabulary: int, prompt: int = PROMPT, answer: int = ANSWER) -> list[list[list[int]]]:
    """Random groups: each the token ids of eight sequences that share a prompt; answers differ in length."""
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> list[int]:
        return [int(token) for token in torch.randint(3, vocabulary, (length,), generator=generator)]

    return [
        [shared + drawn(answer - n % 8) for n in range(GROUPS_OF)] for shared in (drawn(prompt) for _ in range(count))
    ]


def packed(groups: list[list[list[int]]], prompt: int = PROMPT, row_tokens: int = 1024) -> Layout:
    """ART's packing: the prompt once, its answers behind it, rows filled with whole groups as ART fills them."""
    from art.preprocessing.pack import packed_tensors_from_tokenized_results

    results = [_tokenized(sequence, number, prompt) for number, group in enumerate(groups) for sequence in group]
    made = packed_tensors_from_tokenized_results(results, row_tokens, pad_token_id=0)
    rows = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
    return Layout(rows, sum(len(sequence) for group in groups for sequence in group), ours=True)


def padded(groups: list[list[list[int]]], length: int | None, prompt: int = PROMPT) -> Layout:
    """A row per sequence: padded to `length`, or to the longest of them."""
    sequences = [sequence for group in groups for sequence in group]
    width = length or max(map(len, sequences))
    rows = {name: torch.zeros(len(sequences), width, dtype=torch.long) for name in ("tokens", "input_pos")}
    rows |= {name: torch.full((len(sequences), width), -1) for name in ("group_ids", "parent_ids")}
    rows |= {name: torch.zeros(len(sequences), width) for name in ("logprobs", "advantages", "weights")}
    rows["assistant_mask"] = torch.zeros(len(sequences), width, dtype=torch.bool)
    rows["input_pos"] += torch.arange(width)
    for number, sequence in enumerate(sequences):
        rows["tokens"][number, : len(sequence)] = torch.tensor(sequence)
        rows["group_ids"][number, : len(sequence)] = number
        rows["parent_ids"][number, : len(sequence)] = number
        answer = slice(prompt, len(sequence))
        rows["assistant_mask"][number, answer] = True
        rows["weights"][number, answer] = 1.0
        rows["advantages"][number, answer] = 1.0 if number % 2 else -1.0
        rows["logprobs"][number, answer] = -6.0
    return Layout(rows, sum(map(len, sequences)), ours=False)


def _tokenized(sequence: list[int], group: int, prompt: int) -> Any:
    from art import Trajectory
    from art.preprocessing.tokenize import TokenizedResult

    answer = len(sequence) - prompt
    result = TokenizedResult(
        advantage=1.0 if sum(sequence) % 2 else -1.0,
        chat="",
        token_ids=sequence,
        input_pos=list(range(len(sequence))),
        assistant_mask=[0] * prompt + [1] * answer,
        logprobs=[float("nan")] * prompt + [-6.0] * answer,
        pixel_values=None,
        image_grid_thw=None,
        trajectory=Trajectory(messages_and_choices=[], reward=0.0),
        choice_offsets=[],
        extra_logprobs={},
        _tokenizer=cast(Any, None),
    )
    result.prompt_id, result.prompt_length, result.weight = group + 1, prompt, 1.0
    return result


def rate(model: Trainer, layout: Layout, repeats: int, rows_at_once: int | None = None) -> float:
    """Trajectory tokens per second of the fastest of some optimizer steps: forward, backward, clipping, AdamW."""
    count = len(layout.rows["tokens"])
    size = rows_at_once or count
    share = min(size, count) / count
    step = {name: value[:size] for name, value in layout.rows.items()}
    lay_out = compacted
    trainer.compacted = lay_out if layout.ours else lambda rows: rows  # type: ignore[attr-defined]
    try:
        best = min(cpu_seconds(lambda: model.policy_gradient_step(step, PPO)) for _ in range(repeats))
    finally:
        trainer.compacted = lay_out  # type: ignore[attr-defined]
    return layout.tokens * share / best


def cpu_seconds(call: Callable[[], object]) -> float:
    """Seconds that this process was on a CPU for the call."""
    started = time.process_time()
    call()
    return time.process_time() - started
