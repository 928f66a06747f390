"""Base models of the families that are trained here go through the same code; others are refused before anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.serving.engine.number_formats import LARGE
from babylon_assets.training.adapters import load_trainable, read_steps
from babylon_assets.training.backends.embedded.in_process import train_embedded
from babylon_assets.training.backends.registry import choose_backend
from babylon_assets.training.backends.serverless.hosted_catalogue import known_models
from babylon_assets.training.families import require_local
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.precision import parameters_of, train_dtype
from babylon_assets.training.roots import base_model_of
from tests.training.backends.test_embedded import answered, imitation, request

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.08, "bos_token_id": None,
}  # fmt: skip


def folder_of(family: str, tiny_base: Path, folder: Path) -> Path:
    """A random model of a family with our tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.models.llama import LlamaConfig
    from transformers.models.qwen2 import Qwen2Config
    from transformers.models.qwen3 import Qwen3Config

    kinds: dict[str, Any] = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    more = {"head_dim": 16} if family == "qwen3" else {}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = kinds[family](vocab_size=len(tokenizer), tie_word_embeddings=family == "qwen2", **SHAPE, **more, **ends)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(tiny_base / name, folder / name)
    return folder


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_folder_of_each_family_is_served_and_trained_by_the_same_code(
    family: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = folder_of(family, tiny_base, tmp_path / family)
    settings = Settings(home=tmp_path / "home", base_model=str(base), gradient_tokens=512, lora_rank=4, max_kl=100)
    assert choose_backend(settings).name == "embedded"
    samples = answered(base, groups=2, size=3)
    train_embedded(settings, request(base, samples))
    first = read_steps(checkpoint_folder(settings, "babylon-agent", 1))[0]
    assert (first["ratio_min"], first["ratio_max"]) == pytest.approx((1, 1), abs=1e-4)
    assert first["tokens"] == sum(len(one.token_ids or []) for one in samples)
    train_embedded(settings, imitation(base, samples))
    assert checkpoint_folder(settings, "babylon-agent", 2).is_dir()
    model = load_trainable(str(base), None, rank=4, seed=0, device=torch.device("cpu"))
    exact = sum(parameter.numel() for parameter in model.get_base_model().parameters() if not parameter.requires_grad)
    assert parameters_of(str(base)) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("backend", ["auto", "embedded"])
def test_another_family_is_refused_with_the_list_of_those_that_can_be(
    backend: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = tmp_path / "gpt"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(BaseModelRefused, match=r"'gpt2'.*Qwen2, Qwen3 and Llama families"):
        choose_backend(Settings(base_model=str(base), training_backend=backend))
    with pytest.raises(BaseModelRefused, match="'gpt2'"):  # a hub name is known when its config is there
        load_trainable(str(base), None, rank=4, seed=0, device=torch.device("cpu"))


def test_a_folder_that_is_no_model_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelRefused, match=r"no config\.json"):
        choose_backend(Settings(base_model=str(tmp_path)))
    with pytest.raises(BaseModelRefused, match=r"no config\.json"):
        require_local("./nowhere")
    base = tmp_path / "silent"
    shutil.copytree(tiny_base, base)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(BaseModelRefused, match="no chat template"):
        choose_backend(Settings(base_model=str(base)))


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "~/nowhere", "no/such/place", "two words"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub_is_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(BaseModelRefused, match=rf"no config\.json in {name}, so it is no model; set BASE_MODEL"):
        base_model_of(Settings(base_model=name))
    assert base_model_of(Settings(base_model="nobody/has-it")) == "nobody/has-it"


def test_what_the_hosted_service_does_not_train_is_refused_with_what_it_does(tiny_base: Path) -> None:
    with pytest.raises(BaseModelRefused, match=known_models()[1]):
        choose_backend(Settings(wandb_api_key="k", base_model=str(tiny_base)))


def test_a_hub_name_that_is_not_here_yet_is_not_refused() -> None:
    assert (
        choose_backend(Settings(base_model="Qwen/Qwen2.5-0.5B-Instruct", training_backend="embedded")).name
        == "embedded"
    )


def test_the_small_model_is_trained_in_fp32_and_a_large_one_in_what_is_fast(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from babylon_assets.training import precision

    large = tmp_path / "large"
    large.mkdir()
    shape = {"vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True, "model_type": "qwen2"}
    (large / "config.json").write_text(json.dumps({**shape, **heads}))
    assert parameters_of(str(large)) == pytest.approx(494e6, rel=0.01) and parameters_of(str(large)) > LARGE
    for fast in (True, False):
        monkeypatch.setattr(precision, "bf16_is_fast", lambda fast=fast: fast)
        assert train_dtype(Settings(), str(tiny_base)) == "float32"
        assert train_dtype(Settings(), str(large)) == ("bfloat16" if fast else "float32")
        assert train_dtype(Settings(train_dtype="bfloat16"), str(tiny_base)) == "bfloat16"
        assert train_dtype(Settings(train_dtype="float32"), str(large)) == "float32"


def test_bf16_trains_and_is_in_the_manifest_of_what_decides_the_weights(taught_base: Path, tmp_path: Path) -> None:
    from babylon_assets.training.backends.embedded.manifest import trainer_settings

    samples = answered(taught_base)
    settings = Settings(home=tmp_path, gradient_tokens=512, rows_per_step=2, train_dtype="bfloat16", max_kl=100)
    assert trainer_settings(settings, str(taught_base))["dtype"] == "bfloat16"
    train_embedded(settings, request(taught_base, samples))
    first = read_steps(checkpoint_folder(settings, "babylon-agent", 1))[0]
    assert 1e-4 < max(abs(first["ratio_min"] - 1), abs(first["ratio_max"] - 1)) < 0.2
