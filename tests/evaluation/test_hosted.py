"""Checkpoints of the hosted service on the held-out market: the real client against a server that answers for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.environments.simulated import market_evaluation
from babylon_assets.evaluation.gate_runner import decide
from babylon_assets.evaluation.loaded_policies import why_not_loadable
from babylon_assets.evaluation.measurements import measure_benchmark, measure_off_policy
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.serving.engine.engine import Engine
from babylon_assets.training.backends.serverless import hosted_policy, hosted_training
from babylon_assets.training.window_training import train_window
from tests.hosted_service import KEY, HostedService, hosted_service
from tests.training.backends.test_embedded import answered

WINDOW, CHAIN = "2026-11-05T14:00", "babylon-agent"


@pytest.fixture
def service(taught_base: Path, tmp_path: Path) -> Iterator[HostedService]:
    with hosted_service(taught_base, tmp_path / "service") as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, service: HostedService, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(hosted_training, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(hosted_policy, "WAITS", (0.01, 0.01, 0.01))
    given: dict[str, Any] = {"wandb_api_key": KEY, "wandb_project": "project", "serverless_url": service.url}
    return Settings(home=tmp_path, evaluation_seeds=8, **given)


@pytest.fixture
def made(settings: Settings, database: Database, taught_base: Path) -> Checkpoint:
    samples = [msgspec.structs.replace(each, window=WINDOW) for each in answered(taught_base, groups=2, size=2)]
    dataset = Dataset(content_id([WINDOW, samples]), WINDOW, samples, {})
    with database.connect() as conn:
        save_dataset(conn, dataset)
        upsert_window(conn, WINDOW, status="ready", dataset_id=dataset.id, samples=len(samples))
    trained = train_window(settings, database, WINDOW).checkpoint
    assert trained is not None
    return trained


def test_a_hosted_checkpoint_is_examined_and_judged(
    settings: Settings, database: Database, service: HostedService, made: Checkpoint, taught_base: Path
) -> None:
    service.faults["chat"] = [429, 500]
    judged = decide(settings, database, made)
    assert "its market reward is" in judged.why
    boards = 2 * 8 * 12  # of the base and of the checkpoint
    assert service.calls["chat"] >= boards + 2
    with database.connect() as conn:
        root = checkpoints.chain(conn, CHAIN)[0]
    kept = measure_benchmark(settings, database, root)
    assert kept is not None
    expected = market_evaluation.MarketBenchmark(settings).evaluate(Engine(taught_base, root.base_model), 8)
    assert kept.results["rewards"] == pytest.approx(list(expected.rewards))


def test_what_the_service_refuses_is_told_and_nothing_is_kept(
    settings: Settings, database: Database, service: HostedService, made: Checkpoint
) -> None:
    service.faults["chat"] = [400] * 200
    with pytest.raises(PermanentError, match=r"babylon-agent@1 \(400\).*EVALUATE_HOSTED=false"):
        measure_benchmark(settings, database, made)
    service.faults["chat"] = [503] * 2000
    with pytest.raises(TransientError, match="does not answer for babylon-agent@1"):
        measure_benchmark(settings, database, made)
    service.faults.clear()
    found = measure_benchmark(settings, database, made)
    assert found is not None and found.results["valid_share"] > 0


def test_without_a_key_or_where_it_is_switched_off_it_is_not_played(settings: Settings, made: Checkpoint) -> None:
    assert why_not_loadable(settings, made) is None
    assert "WANDB_API_KEY is not set" in (why_not_loadable(settings.replace(wandb_api_key=None), made) or "")
    assert "EVALUATE_HOSTED is false" in (why_not_loadable(settings.replace(evaluate_hosted=False), made) or "")


def test_its_weights_are_not_here_to_be_asked_about_given_answers(
    settings: Settings, database: Database, made: Checkpoint
) -> None:
    assert measure_off_policy(settings, database, made, Dataset("", WINDOW, [], {})) is None
