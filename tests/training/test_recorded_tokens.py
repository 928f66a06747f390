"""Recorded tokens as they are give what ART finds by rendering the conversations."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from art import TrainableModel

from babylon_assets.domain.datasets import Sample
from babylon_assets.training.backends.embedded.art_backend import ArtBackend
from babylon_assets.training.backends.embedded.trainer import TrainerSettings
from babylon_assets.training.recorded_tokens import mixed_steps, tokenized, tokenized_answer
from babylon_assets.training.selection import reward_groups, trajectory_groups
from tests.training.backends.test_embedded import answered


def packed(
    base: Path, home: Path, samples: list[Sample], *, recorded: bool, baselines: dict[str, float] | None = None
) -> dict[str, torch.Tensor]:
    random.seed(5)
    backend = ArtBackend(
        home,
        settings=TrainerSettings(),
        manifest={},
        samples=samples if recorded else None,
        baselines=baselines if recorded else None,
    )
    model: Any = TrainableModel(name="m", project="p", base_model=str(base))
    groups = reward_groups(samples) if recorded else trajectory_groups(samples, baselines)
    made = backend._get_packed_tensors(
        model,
        groups,
        advantage_balance=0.0,
        allow_training_without_logprobs=False,
        scale_rewards=False,
        plot_tensors=False,
        packed_sequence_length=512,
        logprob_calculation_chunk_size=1024,
    )
    assert made is not None
    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}


def test_both_ways_give_the_same_tensors(taught_base: Path, tmp_path: Path) -> None:
    samples = answered(taught_base, groups=5, size=4)
    samples[3] = msgspec.structs.replace(samples[3], reward=sum(one.reward or 0 for one in samples[:3]) / 3)
    assert any(len(one.token_ids or []) == 24 for one in samples)  # answers that were cut are among them
    ours = packed(taught_base, tmp_path, samples, recorded=True)
    arts = packed(taught_base, tmp_path, samples, recorded=False)
    there = arts["parent_ids"] != -1
    assert ours.keys() == arts.keys()
    for name, value in arts.items():
        assert torch.equal(ours[name][there].nan_to_num(9.0), value[there].nan_to_num(9.0)), name
    assert torch.equal(ours["parent_ids"], arts["parent_ids"])
    assert len(ours["assistant_mask"]) < len(samples)  # prompts are shared


def test_late_samples_are_compared_with_those_of_their_group_that_are_not_here(
    taught_base: Path, tmp_path: Path
) -> None:
    """One group has a single answer left, another two; ART gets a stand-in for the others, ours the baseline itself."""
    samples = [
        msgspec.structs.replace(one, reward=number / 8)
        for number, one in enumerate(answered(taught_base, groups=3, size=4))
    ]
    here, baselines = [*samples[:5], *samples[8:10]], {"g1": 0.25, "g2": 1.5}
    wanted = {one.sample_id: (one.reward or 0) - {"g0": 0.1875, **baselines}[one.group] for one in here}
    assert sorted(one.advantage for one in tokenized(here, baselines)) == sorted(wanted.values())
    ours = packed(taught_base, tmp_path, here, recorded=True, baselines=baselines)
    arts = packed(taught_base, tmp_path, here, recorded=False, baselines=baselines)
    there = arts["parent_ids"] != -1
    for name, value in arts.items():
        assert torch.allclose(ours[name][there].double().nan_to_num(9.0), value[there].double().nan_to_num(9.0)), name


def test_a_sample_that_is_its_groups_mean_is_left_out(taught_base: Path) -> None:
    samples = [
        msgspec.structs.replace(one, reward=float(n)) for n, one in enumerate(answered(taught_base, groups=1, size=3))
    ]
    assert sorted(result.advantage for result in tokenized(samples)) == pytest.approx([-1.0, 1.0])


def test_a_step_has_answers_of_two_groups_and_none_is_lost() -> None:
    answers = [
        (f"g{group}", tokenized_answer([group, group], [100 + number], [math.nan], 1.0))
        for group, size in ((1, 9), (2, 1), (3, 3), (4, 8), (5, 4))
        for number in range(size)
    ]
    random.seed(3)
    steps = list(mixed_steps(answers, 8))
    assert Counter(tuple(result.token_ids) for step in steps for result in step) == Counter(
        tuple(result.token_ids) for _, result in answers
    )
    assert all(len(step) <= 8 for step in steps)
    assert all(len({result.prompt_id for result in step}) > 1 for step in steps[:-1])
    random.seed(3)
    again = list(mixed_steps(answers, 8))
    assert [[result.token_ids for result in step] for step in again] == [
        [result.token_ids for result in step] for step in steps
    ]
    assert {result.prompt_length for step in steps for result in step} == {1}
