"""The embedded engine: what it answers, and that its numbers are those of the model."""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.serving.engine import number_formats
from babylon_assets.serving.engine.decoder import Cache
from babylon_assets.serving.engine.engine import Engine, Library
from babylon_assets.serving.engine.number_formats import bf16_is_fast, engine_dtype

if TYPE_CHECKING:
    import torch

CONVERSATIONS = [demonstration.messages for demonstration in draw_demonstrations(seed=5, count=6)]
SHORT = [Message("system", "Trade."), Message("user", "A yes 40")]


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Engine:
    return Engine(tiny_base, "tiny@0")


def assert_same(one: Completion, other: Completion) -> None:
    assert one.token_ids == other.token_ids
    assert one.logprobs == other.logprobs


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(engine: Engine) -> None:
    together = engine.complete([*CONVERSATIONS, SHORT], range(7), max_tokens=16)
    alone = [engine.complete([c], [seed], max_tokens=16)[0] for seed, c in enumerate([*CONVERSATIONS, SHORT])]
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


def test_an_answer_does_not_depend_on_how_many_others_there_are(taught_base: Path) -> None:
    """With layers wide enough for a product of few rows to sum in another order than one of many."""
    engine = Engine(taught_base)
    many = [demonstration.messages for demonstration in draw_demonstrations(seed=6, count=34)]
    alone = [engine.complete([messages], [seed], max_tokens=24)[0] for seed, messages in enumerate(many)]
    for count in (9, 17, 34):
        together = engine.complete(many[:count], range(count), max_tokens=24)
        for one, other in zip(together, alone, strict=False):
            assert_same(one, other)


def test_another_seed_gives_another_answer(engine: Engine) -> None:
    answers = engine.complete([CONVERSATIONS[0]] * 8, range(8), max_tokens=16)
    assert len({tuple(answer.token_ids) for answer in answers}) > 4


def test_temperature_zero_takes_the_likeliest_token(engine: Engine) -> None:
    greedy = engine.complete([CONVERSATIONS[0]] * 2, [1, 2], max_tokens=16, temperature=0)
    assert greedy[0].token_ids == greedy[1].token_ids


def test_the_logprobs_are_the_models_own_at_temperature_one(engine: Engine, tiny_base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    for temperature in (1.0, 0.5):
        (answer,) = engine.complete([CONVERSATIONS[1]], [3], max_tokens=16, temperature=temperature)
        ids = torch.tensor([answer.prompt_token_ids + answer.token_ids])
        with torch.inference_mode():
            logprobs = model(ids).logits.log_softmax(-1)[0, len(answer.prompt_token_ids) - 1 : -1]
        expected = logprobs.gather(1, torch.tensor(answer.token_ids)[:, None]).squeeze(1).tolist()
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_long_answer_is_cut_and_says_so(engine: Engine) -> None:
    (answer,) = engine.complete([CONVERSATIONS[0]], [0], max_tokens=2)
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == len(answer.logprobs) == 2


def test_a_finished_answer_ends_with_the_end_of_turn_which_its_text_lacks(taught_base: Path) -> None:
    from transformers import AutoTokenizer

    engine, tokenizer = Engine(taught_base), AutoTokenizer.from_pretrained(taught_base)
    answers = engine.complete(CONVERSATIONS, range(6), max_tokens=32)
    finished = [answer for answer in answers if answer.finish_reason == "stop"]
    assert finished
    for answer in finished:
        assert tokenizer.convert_ids_to_tokens(answer.token_ids[-1]) == "<|im_end|>"
        assert tokenizer.decode(answer.token_ids[:-1]) == answer.text
        assert "<|im_end|>" not in answer.text


def adapter_in(folder: Path, base: Path, seed: int = 1) -> Any:
    """The model with an adapter that changes it, which is saved into the folder."""
    import torch

    from babylon_assets.training.adapters import load_trainable

    model = load_trainable(str(base), None, rank=4, seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    return model


def test_a_merged_adapter_answers_as_the_adapter_itself(tiny_base: Path, tmp_path: Path) -> None:
    import torch

    model = adapter_in(tmp_path / "adapter", tiny_base)
    engine = Engine(tiny_base)
    base = engine.complete([CONVERSATIONS[0]], [0], max_tokens=8)[0]
    engine.activate(tmp_path / "adapter", "tiny@1")
    assert engine.name == "tiny@1"
    merged = engine.complete([CONVERSATIONS[0]], [0], max_tokens=8)[0]
    ids = torch.tensor([merged.prompt_token_ids + merged.token_ids])
    with torch.inference_mode():
        logprobs = model(ids).logits.log_softmax(-1)[0, len(merged.prompt_token_ids) - 1 : -1]
    expected = logprobs.gather(1, torch.tensor(merged.token_ids)[:, None]).squeeze(1).tolist()
    assert merged.logprobs == pytest.approx(expected, abs=1e-4)
    assert merged.logprobs != pytest.approx(base.logprobs, abs=1e-3)


def test_policies_in_bf16_share_the_base_model_and_answer_as_their_adapters(tiny_base: Path, tmp_path: Path) -> None:
    import torch

    model = adapter_in(tmp_path / "one", tiny_base)
    adapter_in(tmp_path / "two", tiny_base, seed=2)
    library = Library(tiny_base, kept=3, dtype="bfloat16")
    base, one, two = (library.weights(adapter) for adapter in (None, tmp_path / "one", tmp_path / "two"))
    assert one.layers[0].down is two.layers[0].down is base.layers[0].down
    assert one.embedding.dtype == torch.bfloat16
    engine = Engine(tiny_base, dtype="bfloat16")
    plain = engine.complete([CONVERSATIONS[0]], [0], max_tokens=8)[0]
    engine.activate(tmp_path / "one", "tiny@1")
    answer = engine.complete([CONVERSATIONS[0]], [0], max_tokens=8)[0]
    ids = torch.tensor([answer.prompt_token_ids + answer.token_ids])
    with torch.inference_mode():
        logprobs = model(ids).logits.log_softmax(-1)[0, len(answer.prompt_token_ids) - 1 : -1]
    expected = logprobs.gather(1, torch.tensor(answer.token_ids)[:, None]).squeeze(1).tolist()
    assert answer.logprobs == pytest.approx(expected, abs=0.05)
    assert answer.logprobs != pytest.approx(plain.logprobs, abs=1e-3)


def test_an_adapter_of_another_kind_is_merged(tiny_base: Path, tmp_path: Path) -> None:
    adapter_in(tmp_path / "adapter", tiny_base)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"alpha_pattern": {"q_proj": 8}}))
    library = Library(tiny_base, kept=3, dtype="bfloat16")
    weights = library.weights(tmp_path / "adapter")
    assert weights.layers[0].qkv_change is None
    assert weights.layers[0].down is not library.weights(None).layers[0].down


@pytest.mark.skipif(not bf16_is_fast(), reason="this processor has no instructions for bf16")
def test_an_answer_in_bf16_does_not_depend_on_what_else_is_in_the_batch(tiny_base: Path) -> None:
    engine = Engine(tiny_base, dtype="bfloat16")
    together = engine.complete([*CONVERSATIONS, SHORT], range(7), max_tokens=16)
    for seed, conversation in enumerate([*CONVERSATIONS, SHORT]):
        assert_same(together[seed], engine.complete([conversation], [seed], max_tokens=16)[0])


def test_large_models_compute_in_bf16_where_that_is_fast(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    large = {"hidden_size": 2048, "intermediate_size": 32_768, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config | large))
    monkeypatch.setattr(number_formats, "bf16_is_fast", lambda: True)
    assert (engine_dtype(tmp_path), engine_dtype(tiny_base)) == ("bfloat16", "float32")
    monkeypatch.setattr(number_formats, "bf16_is_fast", lambda: False)
    for device, expected in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr("torch.cuda.is_available", lambda device=device: device)
        assert engine_dtype(tmp_path) == expected


def test_a_cache_grows_layer_by_layer_and_little_beyond_what_is_asked(tiny_base: Path) -> None:
    weights = Library(tiny_base).weights(None)
    weights = replace(weights, layers=weights.layers * 4)
    cache = Cache(weights)
    cache.fit(8, 512)
    cache.keys[0].fill_(1.0)
    old = [weakref.ref(tensor) for tensor in (*cache.keys, *cache.values)]
    watched = _WatchedEmbedding(weights.embedding, old)
    cache._weights = replace(weights, embedding=cast("torch.Tensor", watched))
    cache.fit(8, 520)
    assert watched.alive == list(range(len(old), 0, -1))
    assert cache.keys[0][:, :, :512].eq(1).all()
    assert cache.keys[0].shape[2] <= 640


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_in_memory_do_not_keep_the_models_file_mapped(tiny_base: Path, tmp_path: Path, dtype: str) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = Library(base, dtype=dtype).weights(None)
    assert weights.embedding.data_ptr() == weights.head_weight.data_ptr()
    assert str(base) not in Path("/proc/self/maps").read_text()


class _WatchedEmbedding:
    """What tensors are made of, which notes at each how many of the old ones are still there."""

    def __init__(self, embedding: torch.Tensor, old: list[weakref.ref[torch.Tensor]]) -> None:
        self._embedding, self._old = embedding, old
        self.alive: list[int] = []

    def new_zeros(self, *shape: int) -> torch.Tensor:
        self.alive.append(sum(tensor() is not None for tensor in self._old))
        return self._embedding.new_zeros(*shape)
