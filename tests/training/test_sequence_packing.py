"""Rows laid out anew hold the same groups: same loss, same gradients, less to compute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from art.preprocessing.pack import packed_tensors_from_tokenized_results

from babylon_assets.training.backends.embedded import trainer
from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.recorded_tokens import tokenized_answer
from babylon_assets.training.sequence_packing import MULTIPLE, compacted, without_padding

PPO: Any = {"ppo": True, "epsilon": 0.2}
LENGTH = 96


def rows(*groups: list[int]) -> dict[str, torch.Tensor]:
    """A packed row for each list of group lengths: a prompt of four tokens, then answers of five, as ART packs them."""
    generator = torch.Generator().manual_seed(1)
    made: dict[str, list[torch.Tensor]] = {}
    number = 0
    for lengths in groups:
        columns: dict[str, list[Any]] = {name: [] for name in ("group_ids", "parent_ids", "input_pos")}
        for length in lengths:
            number += 1
            answers = [-(10**6) * number - place // 5 for place in range(length - 4)]
            columns["group_ids"] += [number] * 4 + answers
            columns["parent_ids"] += [number] * length
            columns["input_pos"] += list(range(4)) + [4 + place % 5 for place in range(length - 4)]
        used = len(columns["group_ids"])
        empty = LENGTH - used
        answered = torch.tensor([group < 0 for group in columns["group_ids"]] + [False] * empty)
        row = {
            "tokens": torch.randint(3, 200, (LENGTH,), generator=generator),
            "group_ids": torch.tensor(columns["group_ids"] + [-1] * empty),
            "parent_ids": torch.tensor(columns["parent_ids"] + [-1] * empty),
            "input_pos": torch.tensor(columns["input_pos"] + [0] * empty),
            "assistant_mask": answered,
            "logprobs": torch.where(answered, -6.0 + torch.rand(LENGTH, generator=generator), float("nan")),
            "advantages": torch.where(answered, torch.randn(LENGTH, generator=generator), 0.0),
            "weights": answered.float(),
        }
        for name, values in row.items():
            made.setdefault(name, []).append(values)
    return {name: torch.stack(values) for name, values in made.items()}


def test_every_token_is_in_exactly_one_place_and_rows_are_short() -> None:
    packed = rows([24, 34], [14, 14, 29], [9])
    laid = compacted(packed)
    assert laid["tokens"].shape == (3, 48)  # 34 and 14, 29 and 14, 24 and 9
    for name in packed:
        assert laid[name].dtype == packed[name].dtype

    def held(of: dict[str, torch.Tensor]) -> list[tuple[float, ...]]:
        names = [name for name in of if name != "logprobs"]
        there = of["parent_ids"] != -1
        return sorted(zip(*(of[name][there].tolist() for name in names), strict=True))

    assert held(laid) == held(packed)
    assert laid["logprobs"][laid["assistant_mask"]].isfinite().all()
    assert laid["logprobs"][~laid["assistant_mask"]].isnan().all()


def test_a_row_that_one_group_fills_stays_as_it_is() -> None:
    packed = rows([94])
    laid = compacted(packed)
    there = packed["parent_ids"] != -1
    assert all(torch.equal(laid[name][there].nan_to_num(), t[there].nan_to_num()) for name, t in packed.items())
    assert laid["tokens"].shape[1] % MULTIPLE == 0
    nothing = {name: value[:, :0] for name, value in packed.items()}
    assert compacted(nothing) is nothing


def test_rows_are_cut_where_the_longest_of_them_ends() -> None:
    packed = rows([24, 34], [14, 14, 29], [9])
    cut = without_padding(packed)
    assert cut["tokens"].shape == (3, 64)  # 24 and 34 make 58
    assert all(torch.equal(cut[name].nan_to_num(), packed[name][:, :64].nan_to_num()) for name in packed)
    assert without_padding({name: tensor[2:] for name, tensor in packed.items()})["tokens"].shape == (1, 16)


def packed_by_art(answers: Iterable[tuple[str, list[int], int]]) -> dict[str, torch.Tensor]:
    """Answers, each as the name of its prompt, the prompt and its own number of tokens, packed by ART in this order."""
    generator, groups = torch.Generator().manual_seed(2), defaultdict[str, list[Any]](list)
    results = []
    for name, prompt, tokens in answers:
        answer = torch.randint(3, 200, (tokens,), generator=generator).tolist()
        advantage = float(torch.randn(1, generator=generator))
        logprobs = (-6.0 + torch.rand(tokens, generator=generator)).tolist()
        results.append(tokenized_answer(prompt, answer, logprobs, advantage))
        groups[name].append(results[-1])
    for name, group in groups.items():
        for result in group:
            result.prompt_id, result.prompt_length = ord(name), result.choice_offsets[0] - 1
    made = packed_tensors_from_tokenized_results(results, LENGTH, 0, truncate_long_results=False)
    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}


FIRST, SECOND, THIRD = (list(range(start, start + 10)) for start in (10, 40, 70))
PACKED = {
    "groups of one piece": lambda: rows([24, 34], [14, 14, 29], [9]),
    "a group that another interrupts": lambda: packed_by_art(
        [("a", FIRST, 8), ("a", FIRST, 6), ("b", SECOND, 9), ("a", FIRST, 7), ("b", SECOND, 5)]
    ),
    "a group in two rows": lambda: packed_by_art(
        [("c", THIRD, 50), ("a", FIRST, 8), ("a", FIRST, 6), ("a", FIRST, 7), ("a", FIRST, 5)]
    ),
}


@pytest.mark.parametrize("name", PACKED)
def test_loss_gradients_and_metrics_are_those_of_the_rows_as_they_came(
    name: str, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = PACKED[name]()
    found = []
    for lay_out in (compacted, lambda given: given):
        monkeypatch.setattr(trainer, "compacted", lay_out)
        one = Trainer(str(tiny_base), None, TrainerSettings(lora_rank=4, max_kl=1e9, max_grad_norm=1e9))
        metrics = one.policy_gradient_step(packed, PPO)
        assert metrics is not None
        found.append((metrics, [p.grad.clone() for p in one._parameters if p.grad is not None]))
    (laid, laid_gradients), (came, came_gradients) = found
    assert {**laid, "seconds": 0} == pytest.approx({**came, "seconds": 0}, rel=1e-4, abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in came_gradients) > 1e-3
    for one_gradient, other in zip(laid_gradients, came_gradients, strict=True):
        torch.testing.assert_close(one_gradient, other, atol=1e-6, rtol=1e-4)
