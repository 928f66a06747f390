"""The local GPU backend up to the call into ART: who is chosen, what the process is asked, what its answers become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from babylon_assets.config.settings import Settings
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.errors import MissingDependency, PermanentError, TransientError
from babylon_assets.ledger.database import Database
from babylon_assets.training.adapters import read_manifest
from babylon_assets.training.backend import CheckpointPlace, TrainingRequest
from babylon_assets.training.backends.embedded.backend import Embedded
from babylon_assets.training.backends.local_gpu import backend as local_gpu
from babylon_assets.training.backends.local_gpu import gpu_process, gpu_training
from babylon_assets.training.backends.local_gpu.gpu_process import attempt, internal_config, is_out_of_memory
from babylon_assets.training.backends.local_gpu.gpu_training import GpuRequest, error_of, train_local_gpu
from babylon_assets.training.backends.registry import choose_backend
from babylon_assets.training.devices import CudaDevice
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.roots import base_model_of
from babylon_assets.training.selection import Selection
from babylon_assets.training.window_training import train_window
from tests.training.backends.test_embedded import answered
from tests.training.conftest import Ready
from tests.training.test_selection import sample

FIRST = "2026-11-05T14:00"
CHAIN = "babylon-agent"
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens on a machine without a GPU")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and ART's backend, as far as choosing goes; nothing could be trained on it."""
    monkeypatch.setattr(local_gpu, "cuda_device", lambda: CudaDevice("NVIDIA T4", 15.0))
    monkeypatch.setattr(local_gpu, "missing_for_art_backend", lambda: [])
    monkeypatch.setattr(local_gpu.LocalGpu, "versions", Embedded.versions)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(gpu_training, "PROGRAM", "tests.training.backends.gpu_stand_in")
    return monkeypatch


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(home=tmp_path, base_model=str(tiny_base), lora_rank=4, local_gpu_learning_rate=1e-3)


def request(base: Path, samples: list[Sample], method: str = "policy_gradient") -> TrainingRequest:
    chosen = Selection(samples, [], {}) if method == "policy_gradient" else Selection([], samples, {})
    return TrainingRequest(
        base_model=str(base),
        chain=CHAIN,
        samples=chosen,
        manifest={"made": "of this"},
        place=CheckpointPlace(1, None),
    )


def asked(settings: Settings, wanted: TrainingRequest, work: Path | None = None) -> GpuRequest:
    return gpu_training._request_file(settings, wanted, work or settings.home)


def demonstrations() -> list[Sample]:
    return [sample(n, response='{"action":"hold"}', advantage=1.0, trains_as="sft") for n in range(4)]


def test_a_gpu_with_arts_backend_is_chosen_unless_there_is_a_key(gpu: None) -> None:
    choice = choose_backend(Settings())
    assert (choice.name, "NVIDIA T4 of 15 GiB" in choice.reason) == ("local_gpu", True)
    assert base_model_of(Settings()) == "Qwen/Qwen2.5-0.5B-Instruct"
    assert choose_backend(Settings(wandb_api_key="k")).name == "serverless"
    assert choose_backend(Settings(wandb_api_key="k", training_backend="local_gpu")).name == "local_gpu"
    assert choose_backend(Settings(training_backend="embedded")).name == "embedded"


def test_what_is_missing_for_a_gpu_is_said(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gpu, "missing_for_art_backend", lambda: ["unsloth", "trl"])
    choice = choose_backend(Settings())
    assert (choice.name, "NVIDIA T4" in choice.reason, "unsloth, trl" in choice.reason) == ("embedded", True, True)
    monkeypatch.setattr(local_gpu, "cuda_device", lambda: None)
    with pytest.raises(MissingDependency, match=r"no a CUDA device, no unsloth, no trl; .*babylon_assets\[gpu\]"):
        choose_backend(Settings(training_backend="local_gpu"))


@without_gpu
def test_the_process_says_that_there_is_no_gpu(settings: Settings, tiny_base: Path) -> None:
    with pytest.raises(MissingDependency, match=r"no CUDA device that torch can use .*TRAINING_BACKEND=embedded"):
        train_local_gpu(settings, request(tiny_base, answered(tiny_base, groups=1, size=2)))
    assert not checkpoint_folder(settings, CHAIN, 1).exists()
    assert list((settings.home / "art" / ".local_gpu").iterdir()) == []


@without_gpu
def test_art_itself_is_called_and_misses_its_backend(
    settings: Settings, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_process, "_require_cuda", lambda: None)
    result = attempt(asked(settings, request(tiny_base, answered(tiny_base, groups=1, size=2))))
    assert (result.error, result.checkpoint) == ("missing", None)
    assert result.message in ("no module trl", "no module unsloth")
    assert "babylon_assets[gpu]" in str(error_of(result))


def test_what_the_process_made_goes_into_the_chain(
    settings: Settings, database: Database, ready: Ready, gpu: None, stand_in: pytest.MonkeyPatch
) -> None:
    """Imitation, which is ours, learned for real on the processor, through the process and the ledger."""
    stand_in.setenv("GPU_STAND_IN", "trains")
    ready(FIRST, demonstrations())
    result = train_window(settings, database, FIRST)
    assert (result.status, result.method) == ("trained", "sft")
    made = result.checkpoint
    assert made
    assert (made.backend, made.step, Path(made.path)) == ("local_gpu", 1, checkpoint_folder(settings, CHAIN, 1))
    assert made.metrics["trained_tokens"] > 0
    manifest = read_manifest(Path(made.path))
    assert manifest
    assert (manifest["backend"], manifest["settings"]["row_tokens"]) == ("local_gpu", 4096)
    assert train_window(settings, database, FIRST).status == "unchanged"


def test_the_process_goes_on_from_the_parent(
    settings: Settings, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_process, "_require_cuda", lambda: None)
    first = attempt(asked(settings, request(tiny_base, demonstrations(), "sft"), tmp_path / "one"))
    assert first.checkpoint and first.steps
    place = CheckpointPlace(2, Path(first.checkpoint))
    later = replace(request(tiny_base, demonstrations(), "sft"), place=place)
    second = attempt(asked(settings, later, tmp_path / "two"))
    assert second.checkpoint and Path(second.checkpoint).name == "0002"
    assert second.steps[0]["logprob_mean"] > first.steps[0]["logprob_mean"]


def test_out_of_memory_names_the_settings_to_change(
    settings: Settings, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_request: object) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("Engine core initialization failed") from error

    monkeypatch.setattr(gpu_process, "_require_cuda", lambda: None)
    monkeypatch.setattr(gpu_process, "_train", full)
    error = error_of(attempt(asked(settings, request(tiny_base, demonstrations(), "sft"))))
    assert isinstance(error, PermanentError)
    assert all(name in str(error) for name in ("memory does not", "LOCAL_GPU_ROW_TOKENS", "BASE_MODEL"))


@pytest.mark.parametrize(("how", "minutes", "told"), [("dies", 1.0, "ended with -9"), ("hangs", 0.05, "took longer")])
def test_a_process_that_dies_or_hangs_is_worth_another_try(
    settings: Settings, tiny_base: Path, stand_in: pytest.MonkeyPatch, how: str, minutes: float, told: str
) -> None:
    stand_in.setenv("GPU_STAND_IN", how)
    bounded = settings.replace(local_gpu_minutes=minutes)
    with pytest.raises(TransientError, match=told) as raised:
        train_local_gpu(bounded, request(tiny_base, demonstrations(), "sft"))
    assert f"the stand-in {how}" in str(raised.value) or how == "hangs"


def test_the_request_survives_the_way_there_and_carries_our_settings(settings: Settings, tiny_base: Path) -> None:
    sent = asked(settings, request(tiny_base, answered(tiny_base, groups=1, size=2)))
    again = msgspec.json.decode(msgspec.json.encode(sent), type=GpuRequest)
    assert again == sent
    config = internal_config(again, settings.home)
    assert (config["peft_args"]["r"], config["engine_args"]["gpu_memory_utilization"]) == (4, 0.6)
    assert again.samples[0].logprobs == sent.samples[0].logprobs


@without_gpu
def test_an_error_of_any_kind_becomes_the_result(settings: Settings, tiny_base: Path) -> None:
    assert attempt(asked(settings, request(tiny_base, demonstrations(), "sft"))).error == "no_cuda"


def test_memory_is_told_from_other_failures() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(ValueError("No available memory for the cache blocks"))
    assert not is_out_of_memory(ValueError("a wrong shape"))
