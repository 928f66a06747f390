"""What every training backend promises: the three that are shipped, and one that a test registers by entry point.

The hosted service and the GPU's process are stand-ins that speak the real protocol and take real steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.errors import BaseModelRefused, ChainConflict, PermanentError
from babylon_assets.evaluation.loaded_policies import load_policy, why_not_loadable
from babylon_assets.ledger import checkpoints, training_jobs
from babylon_assets.ledger.database import Database
from babylon_assets.training import window_training
from babylon_assets.training.backend import TrainingBackend
from babylon_assets.training.backends import registry
from babylon_assets.training.backends.embedded.backend import Embedded
from babylon_assets.training.backends.local_gpu import backend as local_gpu
from babylon_assets.training.backends.local_gpu import gpu_process, gpu_training
from babylon_assets.training.backends.local_gpu.gpu_training import GpuRequest, GpuResult
from babylon_assets.training.backends.serverless import hosted_training
from babylon_assets.training.devices import CudaDevice
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.window_training import train_branch, train_window
from tests.hosted_service import KEY, hosted_service
from tests.training.backends.bias_backend import BIAS
from tests.training.backends.registration import register_bias_backend
from tests.training.backends.test_embedded import answered
from tests.training.conftest import Ready
from tests.training.test_selection import sample

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"
CHAIN = "babylon-agent"
NAMES = ("embedded", "local_gpu", "serverless", "bias")


@dataclass(frozen=True)
class Case:
    """A backend where it can train.

    Attributes:
        samples: what it trains on.
        trainings: changes when a training begins, and only then.
    """

    settings: Settings
    samples: list[Sample]
    trainings: Callable[[], Any]

    @property
    def backend(self) -> TrainingBackend:
        return registry.choose_backend(self.settings).backend


def demonstrations() -> list[Sample]:
    return [
        sample(n, response='{"action":"hold"}', advantage=1.0, trains_as="sft", policy=None, token_ids=None)
        for n in range(4)
    ]


@pytest.fixture(params=NAMES)
def case(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    name = request.param
    settings = Settings(home=tmp_path / "home", base_model=str(tiny_base), gradient_tokens=512, lora_rank=4, gate=False)
    samples = answered(tiny_base, groups=3, size=3)
    weights = checkpoint_folder(settings, CHAIN, 1) / "adapter_model.safetensors"
    with ExitStack() as running:
        if name == "bias":
            register_bias_backend(tmp_path / "packages", monkeypatch)
        if name == "local_gpu":
            _pretend_gpu(monkeypatch)
            samples = demonstrations()
        if name == "serverless":
            service = running.enter_context(hosted_service(tiny_base, tmp_path / "service"))
            monkeypatch.setattr(hosted_training, "POLL_SECONDS", 0.05)
            hosted: dict[str, Any] = {"wandb_api_key": KEY, "wandb_project": "project", "serverless_url": service.url}
            settings = settings.replace(base_model=None, **hosted)
            yield Case(settings.replace(training_backend=name), samples, lambda: service.calls["submit"])
        else:
            yield Case(settings.replace(training_backend=name), samples, lambda: weights.stat().st_mtime_ns)


def _pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU as far as choosing goes, on which the processor trains, answers to imitate alone.

    What its process would do is done here; test_local_gpu.py has the process itself.
    """
    monkeypatch.setattr(local_gpu, "cuda_device", lambda: CudaDevice("NVIDIA T4", 15.0))
    monkeypatch.setattr(local_gpu, "missing_for_art_backend", lambda: [])
    monkeypatch.setattr(local_gpu.LocalGpu, "versions", Embedded.versions)
    monkeypatch.setattr(gpu_process, "_require_cuda", lambda: None)
    monkeypatch.setattr(gpu_training, "_run", _attempt_here)


def _attempt_here(_settings: Settings, work: Path) -> GpuResult:
    return gpu_process.attempt(msgspec.json.decode((work / gpu_training.REQUEST).read_bytes(), type=GpuRequest))


def test_it_is_found_by_its_name_and_says_why_it_trains(case: Case) -> None:
    choice = registry.choose_backend(case.settings)
    assert (choice.name, choice.reason) == (case.settings.training.backend, "TRAINING_BACKEND asks for it")
    assert choice.name in registry.registered_names()
    assert choice.backend.title and choice.backend.availability(case.settings).reason


def test_it_refuses_a_base_model_that_it_cannot_train(case: Case, tmp_path: Path) -> None:
    with pytest.raises(BaseModelRefused, match="set BASE_MODEL to"):
        registry.choose_backend(case.settings.replace(base_model=str(tmp_path)))


def test_its_manifest_is_json_and_does_not_change_by_itself(case: Case) -> None:
    base = case.settings.training.base_model or str(case.backend.find_base_model(case.settings))
    manifests = [{**case.backend.manifest_settings(case.settings, base), **case.backend.versions()} for _ in range(2)]
    assert json.loads(json.dumps(manifests[0])) == manifests[0] == manifests[1]
    assert manifests[0]


def test_it_trains_a_window_once(case: Case, database: Database, ready: Ready) -> None:
    ready(FIRST, case.samples)
    result = train_window(case.settings, database, FIRST, "run")
    assert result.status == "trained" and result.checkpoint and result.trained_tokens > 0
    made = result.checkpoint
    assert (made.backend, made.step, made.base_model != "") == (case.backend.name, 1, True)
    assert made.weights_sha256 and all(step["tokens"] > 0 for step in result.steps)
    assert Path(made.path).is_dir() == case.backend.capabilities.keeps_weights_here
    trainings = case.trainings()
    assert train_window(case.settings, database, FIRST).status == "unchanged"
    assert case.trainings() == trainings


class Killed(BaseException):
    """Stands for the end of the process at this very place."""


def test_what_a_killed_run_made_is_taken_up(
    case: Case, database: Database, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run dies when the checkpoint is made and the ledger does not know it: nothing is trained or paid again."""

    def kill(*_arguments: object) -> None:
        raise Killed

    ready(FIRST, case.samples)
    with monkeypatch.context() as patch:
        patch.setattr(window_training, "_record", kill)
        with pytest.raises(Killed):
            train_window(case.settings, database, FIRST)
    trainings = case.trainings()
    result = train_window(case.settings, database, FIRST)
    assert result.status == "trained" and result.checkpoint
    assert case.trainings() == trainings
    with database.connect() as conn:
        assert [row.step for row in checkpoints.chain(conn, CHAIN)] == [0, 1]


def test_the_next_window_goes_on_from_the_last(case: Case, database: Database, ready: Ready) -> None:
    ready(FIRST, case.samples)
    ready(SECOND, case.samples)
    one, two = (train_window(case.settings, database, window).checkpoint for window in (FIRST, SECOND))
    assert one and two
    assert (two.step, two.parent_id) == (2, one.id)
    assert one.weights_sha256 != two.weights_sha256


def test_answers_known_as_text_are_imitated_or_counted(case: Case, database: Database, ready: Ready) -> None:
    ready(FIRST, demonstrations())
    result = train_window(case.settings, database, FIRST)
    if case.backend.capabilities.imitates:
        assert (result.status, result.method) == ("trained", "sft")
    else:
        assert result.status == "skipped" and result.checkpoint is None
        assert result.left_out == {f"{case.backend.title} trains on recorded log-probabilities alone": 4}


def test_it_begins_a_branch_or_says_that_it_does_not(case: Case, database: Database, ready: Ready) -> None:
    ready(FIRST, case.samples)
    ready(SECOND, case.samples)
    for window in (FIRST, SECOND):
        train_window(case.settings, database, window)
    ready(FIRST, [sample for sample in case.samples if sample.sample_id != case.samples[0].sample_id])
    if not case.backend.capabilities.branches:
        with pytest.raises(PermanentError, match=f"{case.backend.title} .* begins no branch"):
            train_branch(case.settings, database, FIRST)
        return
    result = train_branch(case.settings, database, FIRST)
    assert result.checkpoint and result.parent
    assert (result.status, result.checkpoint.step, result.parent.step) == ("trained", 1, 0)
    with database.connect() as conn:
        assert [row.step for row in checkpoints.chain(conn, CHAIN)] == [0, 1, 2]


def test_what_it_made_answers(case: Case, database: Database, ready: Ready) -> None:
    ready(FIRST, case.samples)
    made = train_window(case.settings, database, FIRST).checkpoint
    assert made and why_not_loadable(case.settings, made) is None
    (answer,) = load_policy(case.settings, made).complete([case.samples[0].messages], [1], max_tokens=4)
    assert answer.finish_reason in ("stop", "length")


def test_a_chain_stays_with_its_backend(
    case: Case, database: Database, ready: Ready, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(FIRST, case.samples)
    ready(SECOND, case.samples)
    train_window(case.settings, database, FIRST)
    other = "bias" if case.backend.name == "embedded" else "embedded"
    if other == "bias":
        register_bias_backend(tmp_path / "other", monkeypatch)
    changed = case.settings.replace(
        training_backend=other, base_model=case.settings.training.base_model or str(tiny_base)
    )
    with pytest.raises(ChainConflict, match=r"TRAINING_BACKEND=|set it back"):
        train_window(changed, database, SECOND)


def test_an_attempt_that_fails_is_closed_and_the_next_one_trains(
    case: Case, database: Database, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise PermanentError("it cannot be")

    ready(FIRST, case.samples)
    with monkeypatch.context() as patch:
        patch.setattr(type(case.backend), "train", fail)
        with pytest.raises(PermanentError, match="it cannot be"):
            train_window(case.settings, database, FIRST)
    assert train_window(case.settings, database, FIRST).status == "trained"
    with database.connect() as conn:
        assert [(job.state, job.backend) for job in training_jobs.list_jobs(conn, CHAIN, FIRST)] == [
            ("failed", case.backend.name),
            ("trained", case.backend.name),
        ]


def test_the_bias_backend_raises_the_logit_of_its_token_by_the_bias(
    tmp_path: Path, tiny_base: Path, database: Database, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    from babylon_assets.training.recompute import answer_logprobs
    from babylon_assets.training.recompute import load_policy as load_model

    register_bias_backend(tmp_path / "packages", monkeypatch)
    settings = Settings(home=tmp_path, base_model=str(tiny_base), training_backend="bias", gate=False)
    samples = answered(tiny_base, groups=3, size=3)
    ready(FIRST, samples)
    result = train_window(settings, database, FIRST)
    assert result.checkpoint and result.checkpoint.settings["bias"] == BIAS
    best = max(samples, key=lambda one: one.reward or 0.0)
    turn = (best.prompt_token_ids or [], (best.token_ids or [])[:1])
    (before,), (after,) = (
        answer_logprobs(load_model(str(tiny_base), adapter), [turn])[0]
        for adapter in (None, Path(result.checkpoint.path))
    )
    assert after == pytest.approx(before + BIAS - math.log1p(math.exp(before) * math.expm1(BIAS)), abs=1e-4)
