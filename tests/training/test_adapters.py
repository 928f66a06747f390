"""Checkpoint folders: whole or not at all, and exactly what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from babylon_assets.training import adapters
from babylon_assets.training.adapters import (
    compute_layers_again,
    load_trainable,
    read_manifest,
    read_steps,
    restore_optimizer,
    write_checkpoint,
)

CPU = torch.device("cpu")


def trained(base: Path, checkpoint: Path | None = None) -> tuple[Any, torch.optim.Optimizer]:
    """An adapter and its optimizer after two steps."""
    model = load_trainable(str(base), checkpoint, rank=4, seed=0, device=CPU)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    restore_optimizer(model, optimizer, checkpoint)
    return model, optimizer


def take_step(model: Any, optimizer: torch.optim.Optimizer) -> float:
    tokens = torch.arange(3, 23)[None]
    loss = model(tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tiny_base: Path, tmp_path: Path) -> None:
    model, optimizer = trained(tiny_base)
    for _ in range(2):
        take_step(model, optimizer)
    folder = write_checkpoint(model, optimizer, manifest={"a": 1}, steps=[{"loss": 2.0}], checkpoints=tmp_path, step=1)
    expected = [take_step(model, optimizer) for _ in range(3)]
    again, its_optimizer = trained(tiny_base, folder)
    assert [take_step(again, its_optimizer) for _ in range(3)] == expected
    assert folder == tmp_path / "0001"
    assert read_manifest(folder) == {"a": 1}
    assert read_steps(folder) == [{"loss": 2.0}]


def test_a_checkpoint_that_is_not_whole_has_no_checkpoints_name(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(tiny_base)
    take_step(model, optimizer)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for crossing in ("_write_optimizer", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(adapters, crossing, killed)
            with pytest.raises(KeyboardInterrupt):
                write_checkpoint(model, optimizer, manifest={}, steps=[], checkpoints=tmp_path, step=1)
        assert not [folder for folder in tmp_path.iterdir() if folder.name.isdecimal()]
    assert write_checkpoint(model, optimizer, manifest={}, steps=[], checkpoints=tmp_path, step=1).is_dir()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["0001"]


def test_a_folder_without_a_manifest_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_a_new_adapter_follows_from_its_seed_and_changes_nothing(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    tokens = torch.arange(3, 23)[None]
    one, two, other = (load_trainable(str(tiny_base), None, rank=4, seed=seed, device=CPU) for seed in (0, 0, 1))
    torch.testing.assert_close(one(tokens).logits, base(tokens).logits)
    weights = [[p for n, p in model.named_parameters() if "lora_A" in n] for model in (one, two, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_a_manifest_is_plain_json(tiny_base: Path, tmp_path: Path) -> None:
    model, optimizer = trained(tiny_base)
    take_step(model, optimizer)
    folder = write_checkpoint(
        model, optimizer, manifest={"parent": "x", "settings": {"lr": 0.1}}, steps=[], checkpoints=tmp_path, step=7
    )
    assert json.loads((folder / adapters.MANIFEST).read_text())["settings"] == {"lr": 0.1}
    assert len(adapters.weights_sha256(folder)) == 64


def test_as_many_layers_are_computed_again_as_have_no_room() -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=5, num_attention_heads=2)
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=1, target_modules=["q_proj"]))
    for share, again in ((0.0, 0), (0.1, 2), (0.5, 4), (0.9, 5), (0.0, 0)):
        compute_layers_again(model, share)
        assert [layer.training for layer in model.get_base_model().model.layers] == [n < again for n in range(5)]
        assert not model.training
