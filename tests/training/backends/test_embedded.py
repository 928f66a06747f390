"""The embedded backend through ART itself: real steps on a real, small model."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from art import TrainableModel
from peft import PeftModel
from transformers import AutoModelForCausalLM

from babylon_assets.config.settings import Settings
from babylon_assets.domain.chat_turns import chat_turns
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.token_counts import seen_tokens
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.serving.engine.engine import Engine
from babylon_assets.training.adapters import read_manifest, read_steps, weights_sha256
from babylon_assets.training.backend import TrainingRequest
from babylon_assets.training.backends.embedded.art_backend import ArtBackend, encode_turns, longest_row
from babylon_assets.training.backends.embedded.in_process import release_memory, train_embedded
from babylon_assets.training.backends.embedded.trainer import TrainerSettings
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.selection import Selection
from tests.training.test_selection import sample


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, gradient_tokens=512, rows_per_step=2, lora_rank=8, learning_rate=5e-3, max_kl=100)


def answered(base: Path, adapter: Path | None = None, groups: int = 6, size: int = 4) -> list[Sample]:
    """Answers of the base model (or of an adapter on it); short ones are rewarded."""
    engine = Engine(base)
    if adapter is not None:
        engine.activate(adapter, "babylon-agent@1")
    demonstrations = [demonstration for demonstration in draw_demonstrations(seed=3, count=groups) for _ in range(size)]
    answers = engine.complete(
        [demonstration.messages for demonstration in demonstrations], range(len(demonstrations)), max_tokens=24
    )
    return [
        sample(
            number,
            group=f"g{number // size}",
            messages=demonstration.messages,
            response=answer.text,
            prompt_token_ids=answer.prompt_token_ids,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            reward=-float(len(answer.token_ids)) + 0.001 * number**2,
            policy_step=0,
        )
        for number, (demonstration, answer) in enumerate(zip(demonstrations, answers, strict=True))
    ]


def request(base: Path, samples: list[Sample], **manifest: Any) -> TrainingRequest:
    return TrainingRequest(
        base_model=str(base), chain="babylon-agent", samples=Selection(samples, [], {}), manifest=manifest
    )


def imitation(base: Path, samples: list[Sample]) -> TrainingRequest:
    return TrainingRequest(base_model=str(base), chain="babylon-agent", samples=Selection([], samples, {}), manifest={})


def test_what_was_served_is_what_is_trained(taught_base: Path, settings: Settings) -> None:
    samples = answered(taught_base)
    train_embedded(settings, request(taught_base, samples, parent="root"))
    folder = checkpoint_folder(settings, "babylon-agent", 1)
    steps = read_steps(folder)
    assert read_manifest(folder) == {"parent": "root"}
    assert sum(step["tokens"] for step in steps) == sum(len(one.token_ids or []) for one in samples)
    first = steps[0]
    assert (first["ratio_min"], first["ratio_max"]) == pytest.approx((1, 1), abs=1e-4)
    assert first["kl_to_behaviour"] == pytest.approx(0, abs=1e-6)
    assert all(math.isfinite(value) for step in steps for value in step.values())


def test_the_next_checkpoint_goes_on_from_the_last(taught_base: Path, settings: Settings) -> None:
    train_embedded(settings, request(taught_base, answered(taught_base)))
    first = checkpoint_folder(settings, "babylon-agent", 1)
    train_embedded(settings, request(taught_base, answered(taught_base, first)))
    second = checkpoint_folder(settings, "babylon-agent", 2)
    ratios = read_steps(second)[0]
    assert (ratios["ratio_min"], ratios["ratio_max"]) == pytest.approx((1, 1), abs=1e-4)
    assert weights_sha256(first) != weights_sha256(second)


def test_better_answers_become_likelier_than_worse_ones(taught_base: Path, settings: Settings) -> None:
    samples = answered(taught_base, groups=8, size=8)
    train_embedded(settings, request(taught_base, samples))
    folder = checkpoint_folder(settings, "babylon-agent", 1)
    gain = 0.0
    for group in (samples[start : start + 8] for start in range(0, len(samples), 8)):
        mean = sum(one.reward or 0.0 for one in group) / len(group)
        for one in group:
            now = logprob(taught_base, folder, one.prompt_token_ids or [], one.token_ids or [])
            gain += ((one.reward or 0.0) - mean) * (now - sum(one.logprobs or []))
    assert gain > 0


def test_a_step_that_goes_too_far_is_undone_and_ends_the_pass(taught_base: Path, tmp_path: Path) -> None:
    samples = answered(taught_base, groups=12)
    wild: dict[str, Any] = {
        "gradient_tokens": 512,
        "rows_per_step": 1,
        "lora_rank": 8,
        "max_grad_norm": 1000.0,
        "max_kl": 5e-5,
        "sure_weight": 0,  # what holds answers would keep the steps small
    }
    tamed, free = (
        Settings(home=tmp_path / name, learning_rate=2e-3, **{**wild, **changes})
        for name, changes in (("tamed", {}), ("free", {"max_kl": 100}))
    )
    for settings in (tamed, free):
        train_embedded(settings, request(taught_base, samples))
    steps, all_steps = (read_steps(checkpoint_folder(settings, "babylon-agent", 1)) for settings in (tamed, free))
    assert len(steps) < len(all_steps)
    assert [step.get("undone") for step in steps] == [None] * (len(steps) - 1) + [1.0]
    assert not any("undone" in step for step in all_steps)
    folder = checkpoint_folder(tamed, "babylon-agent", 1)
    moved = [
        sum(one.logprobs or []) - logprob(taught_base, folder, one.prompt_token_ids or [], one.token_ids or [])
        for one in samples
    ]
    assert sum(moved) / sum(len(one.token_ids or []) for one in samples) < 0.05


def test_a_window_is_gone_through_as_often_as_is_said(taught_base: Path, settings: Settings) -> None:
    samples = answered(taught_base, groups=12)
    train_embedded(settings.replace(passes_per_window=2, rows_per_step=1), request(taught_base, samples))
    steps = read_steps(checkpoint_folder(settings, "babylon-agent", 1))
    half = len(steps) // 2
    assert half > 1
    assert ["again" in step for step in steps] == [False] * half + [True] * half
    assert [step["tokens"] for step in steps[:half]] == [step["tokens"] for step in steps[half:]]
    assert seen_tokens(steps) == sum(len(one.token_ids or []) for one in samples)
    assert steps[half]["kl_to_behaviour"] > steps[0]["kl_to_behaviour"]


def test_answers_of_older_policies_do_not_end_the_pass(taught_base: Path, tmp_path: Path) -> None:
    """Their rows are far from the policy before anything has moved; what counts is how far a step moves it."""
    samples = answered(taught_base, groups=12)
    old = {f"g{number}" for number in range(0, 12, 2)}
    late = [
        msgspec.structs.replace(one, policy="babylon-agent@-8", logprobs=[value - 0.6 for value in one.logprobs or []])
        if one.group in old
        else one
        for one in samples
    ]
    settings = Settings(
        home=tmp_path, gradient_tokens=512, rows_per_step=1, lora_rank=8, learning_rate=1e-5, max_kl=0.01
    )
    train_embedded(settings, request(taught_base, late))
    steps = read_steps(checkpoint_folder(settings, "babylon-agent", 1))
    distances = [step["kl_to_behaviour"] for step in steps]
    assert max(distances) - distances[0] > 0.02  # beyond the bound, before anything has moved
    assert max(step["kl_to_parent"] for step in steps) < 0.001
    assert not any("undone" in step for step in steps)
    assert sum(step["tokens"] for step in steps) == sum(len(one.token_ids or []) for one in late)


def test_when_no_step_is_kept_there_is_no_checkpoint(taught_base: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, gradient_tokens=512, rows_per_step=50, learning_rate=0.5, max_kl=1e-4)
    train_embedded(settings, request(taught_base, answered(taught_base)))
    assert not checkpoint_folder(settings, "babylon-agent", 1).exists()


def test_the_same_request_gives_the_same_weights_bit_for_bit(taught_base: Path, tmp_path: Path) -> None:
    samples = answered(taught_base)
    hashes = []
    for name in ("one", "two"):
        settings = Settings(home=tmp_path / name, gradient_tokens=512, rows_per_step=2, lora_rank=8)
        train_embedded(settings, request(taught_base, samples))
        hashes.append(weights_sha256(checkpoint_folder(settings, "babylon-agent", 1)))
    assert hashes[0] == hashes[1]


def test_imitated_answers_become_likelier_and_those_of_no_weight_are_not_taught(
    taught_base: Path, settings: Settings
) -> None:
    messages = next(draw_demonstrations(seed=9, count=1)).messages
    texts = {"wanted": '{"note":"x","action":"hold"}', "ignored": "buy buy buy"}
    turns = {name: encoded(taught_base, messages, text) for name, text in texts.items()}
    pair = [
        sample(0, messages=messages, response=texts["wanted"], advantage=1.0),
        sample(1, messages=messages, response=texts["ignored"], advantage=0.0),
    ]
    samples = pair * 16
    train_embedded(settings.replace(imitation_passes=2), imitation(taught_base, samples))
    folder = checkpoint_folder(settings, "babylon-agent", 1)
    gained = {
        name: logprob(taught_base, folder, *turn) - logprob(taught_base, None, *turn) for name, turn in turns.items()
    }
    assert gained["wanted"] > 1
    assert gained["ignored"] < gained["wanted"] / 2
    steps = read_steps(folder)
    assert ["again" in step for step in steps] == [False] * 4 + [True] * 4
    assert seen_tokens(steps) == 16 * len(turns["wanted"][1]) + 16 * len(turns["ignored"][1])


def encoded(base: Path, messages: list[Message], text: str) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and of an answer to it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    return encode_turns(tokenizer, [*chat_turns(messages), {"role": "assistant", "content": text}])


def logprob(base: Path, adapter: Path | None, prompt: list[int], answer: list[int]) -> float:
    """Natural log-probability of a whole answer."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.inference_mode():
        logprobs = model(torch.tensor([prompt + answer])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return float(logprobs.gather(1, torch.tensor(answer)[:, None]).sum())


def test_art_itself_resumes_and_prunes(taught_base: Path, settings: Settings) -> None:
    train_embedded(settings, request(taught_base, answered(taught_base)))
    train_embedded(settings, request(taught_base, answered(taught_base)))
    backend = ArtBackend(settings.home / "art", settings=TrainerSettings(), manifest={})
    model: Any = TrainableModel(name="babylon-agent", project="babylon", base_model=str(taught_base))
    asyncio.run(backend.register(model))
    assert asyncio.run(backend._get_step(model)) == 2
    asyncio.run(backend._delete_checkpoint_files(model, [2]))
    assert not checkpoint_folder(settings, "babylon-agent", 1).exists()
    assert checkpoint_folder(settings, "babylon-agent", 2).is_dir()


@pytest.mark.parametrize(("lengths", "row"), [([], 1024), ([10, 1024], 1024), ([1025], 1280), ([3000], 3072)])
def test_a_row_holds_the_longest_sample(lengths: list[int], row: int) -> None:
    assert longest_row(lengths, 1024) == row


def test_what_a_training_held_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    kept = [bytearray(20_000) for _ in range(5_000)]  # 100 MB that glibc takes from its heap
    full, last = resident(), kept[-1]
    kept = [last]
    release_memory()
    assert full - resident() > 5_000  # pages of 4 KB
