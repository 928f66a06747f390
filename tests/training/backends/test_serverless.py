"""The hosted backend: ART's real client against a server that trains for real, and everything that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from babylon_assets.config.settings import Settings
from babylon_assets.domain.dataset_codec import dataset_id
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.errors import BaseModelRefused, PermanentError, SettingsError, TrainingBusy, TransientError
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.training_jobs import Job, list_jobs
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.training.backends.registry import choose_backend
from babylon_assets.training.backends.serverless import hosted_training
from babylon_assets.training.backends.serverless.hosted_catalogue import known_models
from babylon_assets.training.backends.serverless.hosted_jobs import LedgerJournal
from babylon_assets.training.backends.serverless.hosted_training import NoHostedJob, require_recorded, steps_of
from babylon_assets.training.window_training import train_window
from tests.hosted_service import KEY, HostedService, hosted_service
from tests.training.backends.test_embedded import answered
from tests.training.test_selection import sample

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"
CHAIN = "babylon-agent"


@pytest.fixture
def service(tiny_base: Path, tmp_path: Path) -> Iterator[HostedService]:
    with hosted_service(tiny_base, tmp_path / "service") as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, service: HostedService) -> Settings:
    return Settings(gate=False, home=tmp_path, wandb_api_key=KEY, wandb_project="project", serverless_url=service.url)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_training, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(hosted_training, "WAITS", (0.05, 0.05))


@pytest.fixture(scope="module")
def samples(tiny_base: Path) -> list[Sample]:
    return answered(tiny_base, groups=3, size=3)


Ready = Callable[[str, list[Sample]], Dataset]


@pytest.fixture
def ready(database: Database, samples: list[Sample]) -> Ready:
    """Give a window a dataset that is ready to be trained; the first window has one already."""

    def make(window: str, samples: list[Sample]) -> Dataset:
        samples = [replace(sample, window=window) for sample in samples]
        dataset = Dataset(dataset_id(window, samples), window, samples, {})
        with database.connect() as conn:
            save_dataset(conn, dataset)
            upsert_window(conn, window, status="ready", dataset_id=dataset.id, samples=len(samples))
        return dataset

    make(FIRST, samples)
    return make


def attempts(database: Database, window: str = FIRST) -> list[Job]:
    with database.connect() as conn:
        return list_jobs(conn, CHAIN, window)


def test_a_window_is_trained_by_the_service(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], service: HostedService
) -> None:
    priced = settings.replace(serverless_usd_per_million_tokens=1000.0)
    one = train_window(priced, database, FIRST)
    assert one.status == "trained"
    assert one.checkpoint and one.checkpoint.path == "wandb-artifact:///team/project/babylon-agent:step1"
    assert (one.checkpoint.backend, one.checkpoint.base_model) == ("serverless", known_models()[0])
    assert one.trained_tokens == sum(len(one.token_ids or []) for one in samples)
    (job,) = attempts(database)
    sent = sum(len(one.prompt_token_ids or []) + len(one.token_ids or []) for one in samples)
    assert (job.state, job.external_id, job.cost_usd) == ("trained", "job-1", pytest.approx(sent / 1000))
    assert job.usage and job.usage["tokens"] == one.trained_tokens
    assert (job.usage["sent_tokens"], job.usage["hosted_step"]) == (sent, 1)
    assert job.usage["seconds"] > 0
    ready(SECOND, samples)
    two = train_window(priced, database, SECOND)
    assert two.checkpoint and two.checkpoint.parent_id == one.checkpoint.id
    assert service.steps == [0, 1, 2] or service.steps == [1, 2]
    assert train_window(priced, database, SECOND).status == "unchanged"
    assert service.calls["submit"] == 2


def test_what_is_sent_are_the_recorded_tokens(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], service: HostedService
) -> None:
    expert = sample(99, group="other", trains_as="sft", policy=None, token_ids=None, logprobs=None)
    ready(FIRST, [*samples, expert])
    result = train_window(settings, database, FIRST)
    (body,) = service.bodies
    turns = [one["messages_and_choices"][-1] for group in body["trajectory_groups"] for one in group["trajectories"]]
    told = [[token["token"] for token in turn["logprobs"]["content"]] for turn in turns]
    assert sorted(told) == sorted([f"token_id:{token}" for token in one.token_ids or []] for one in samples)
    assert sum(result.left_out.values()) == 1


def test_nothing_recorded_is_skipped_before_anything_is_sent(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    ready(FIRST, [sample(n, trains_as="sft", token_ids=None, logprobs=None, advantage=1.0) for n in range(4)])
    result = train_window(settings, database, FIRST)
    assert result.status == "skipped"
    assert "hosted service trains on recorded log-probabilities alone (4)" in result.reason
    assert not service.calls


@pytest.mark.parametrize("changes", [{"logprobs": None}, {"token_ids": []}])
def test_a_sample_that_would_be_dropped_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="would be dropped"):
        require_recorded([sample(0), sample(1, **changes)])


class Killed(BaseException):
    """Stands for the end of the process at this very place."""


def test_a_run_that_died_attaches_to_its_job(
    settings: Settings, database: Database, ready: Ready, service: HostedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.faults["slow"] = [0.5]
    with monkeypatch.context() as patch:
        patch.setattr(LedgerJournal, "alive", _kill)
        with pytest.raises(Killed):
            train_window(settings, database, FIRST)
    (job,) = attempts(database)
    assert (job.state, job.external_id) == ("submitted", "job-1")
    result = train_window(settings, database, FIRST)
    assert result.status == "trained"
    assert service.calls["submit"] == 1
    assert [job.state for job in attempts(database)] == ["trained"]


def test_a_window_that_changed_while_its_job_ran_keeps_what_was_paid_for(
    settings: Settings,
    database: Database,
    ready: Ready,
    samples: list[Sample],
    service: HostedService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LedgerJournal, "alive", _kill)
        with pytest.raises(Killed):
            train_window(settings, database, FIRST)
    paid = attempts(database)[0].dataset_id
    ready(SECOND, samples)
    with pytest.raises(TrainingBusy, match=FIRST):
        train_window(settings, database, SECOND)
    ready(FIRST, samples[:6])
    result = train_window(settings, database, FIRST)
    assert result.checkpoint and result.checkpoint.dataset_id == paid
    assert train_window(settings, database, SECOND).status == "trained"
    assert service.calls["submit"] == 2


def test_a_job_whose_answer_was_lost_is_taken_up(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["submit-lost"] = [True]
    with pytest.raises(TransientError, match="524"):
        train_window(settings, database, FIRST)
    (job,) = attempts(database)
    assert (job.state, job.external_id) == ("submitted", None)
    _wait_for_end(service)
    result = train_window(settings, database, FIRST)
    assert (result.status, service.calls["submit"]) == ("trained", 1)


def test_a_job_whose_answer_was_lost_is_waited_for_while_it_runs(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults |= {"submit-lost": [True], "slow": [2.0]}
    with pytest.raises(TransientError, match="524"):
        train_window(settings, database, FIRST)
    result = train_window(settings, database, FIRST)
    assert (result.status, service.calls["submit"], len(service.jobs)) == ("trained", 1, 1)


def test_a_submission_that_was_lost_with_its_job_is_made_again_in_time(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["submit"] = [524]
    with pytest.raises(TransientError, match="524"):
        train_window(settings, database, FIRST)
    result = train_window(settings.replace(serverless_wait_minutes=0.01), database, FIRST)
    assert (result.status, service.calls["submit"], len(service.jobs)) == ("trained", 2, 1)


def test_a_refusal_by_a_gateway_is_submitted_again(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["submit"] = [500]
    with pytest.raises(TransientError, match="500"):
        train_window(settings, database, FIRST)
    assert train_window(settings, database, FIRST).status == "trained"
    assert [job.state for job in attempts(database)] == ["trained"]
    assert len(service.jobs) == 1


@pytest.mark.parametrize(
    "faults",
    [{"register": [500, 524]}, {"events": [500, 502]}, {"events-dropped": [True, True]}, {"duplicates": [True] * 9}],
    ids=["register", "events", "dropped", "duplicates"],
)
def test_passing_faults_change_nothing(
    settings: Settings, database: Database, ready: Ready, service: HostedService, faults: dict[str, list[Any]]
) -> None:
    service.faults.update(faults)
    result = train_window(settings, database, FIRST)
    assert result.status == "trained"
    with database.connect() as conn:
        kept = checkpoints.by_window(conn, CHAIN, FIRST)
    assert kept and kept.metrics["optimizer_steps"] == len(
        [event for event in service.jobs["job-1"].events if event["type"] == "gradient_step"]
    )


def test_a_service_that_stays_down_is_left_for_later(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["register"] = [500] * 3
    with pytest.raises(TransientError, match="500"):
        train_window(settings, database, FIRST)
    (job,) = attempts(database)
    assert (job.state, job.reason) == ("failed", "the hosted service answered 500")


def test_a_silent_job_is_attached_to_later(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["slow"] = [1.0]
    with pytest.raises(TransientError, match="train the window again to attach"):
        train_window(settings.replace(serverless_wait_minutes=0.005), database, FIRST)
    assert train_window(settings, database, FIRST).status == "trained"
    assert service.calls["submit"] == 1


def test_a_failed_job_is_said_and_the_next_run_submits_another(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["job-failed"] = [f"out of memory, key {KEY}"]
    with pytest.raises(NoHostedJob, match="out of memory"):
        train_window(settings, database, FIRST)
    assert train_window(settings, database, FIRST).status == "trained"
    failed, trained = attempts(database)
    assert (failed.state, trained.state) == ("failed", "trained")
    assert KEY not in (failed.reason or "")


def test_a_wrong_key_is_permanent_and_is_not_shown(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    wrong = settings.replace(wandb_api_key="wrong-key-987654321")
    with pytest.raises(PermanentError, match="WANDB_API_KEY") as told:
        train_window(wrong, database, FIRST)
    assert "987654321" not in f"{told.value!r} {told.value} {told.value.__cause__} {wrong!r}"
    assert "987654321" not in str(attempts(database))


def test_a_refused_request_is_permanent_and_names_what_the_service_said(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.faults["submit"] = [422]
    with pytest.raises(PermanentError, match="bad request") as told:
        train_window(settings, database, FIRST)
    assert KEY not in str(told.value)
    assert [job.state for job in attempts(database)] == ["failed"]


def test_the_cap_of_a_day_stops_new_jobs(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], service: HostedService
) -> None:
    tokens = sum(len(one.prompt_token_ids or []) + len(one.token_ids or []) for one in samples)
    capped = settings.replace(serverless_usd_per_million_tokens=1e6 / tokens, serverless_daily_usd=1.5)
    assert train_window(capped, database, FIRST).status == "trained"
    ready(SECOND, samples)
    with pytest.raises(PermanentError, match=r"1\.00 USD are spent today and SERVERLESS_DAILY_USD is 1\.50"):
        train_window(capped, database, SECOND)
    assert service.calls["submit"] == 1
    assert train_window(capped.replace(serverless_daily_usd=2.5), database, SECOND).status == "trained"


def test_the_key_decides_and_the_setting_forces() -> None:
    keyed = Settings(wandb_api_key=KEY)
    assert choose_backend(keyed).name == "serverless"
    assert choose_backend(keyed.replace(training_backend="embedded")).name == "embedded"
    assert choose_backend(Settings()).name == "embedded"
    with pytest.raises(SettingsError, match="WANDB_API_KEY"):
        choose_backend(Settings(training_backend="serverless"))


def test_steps_have_the_names_that_every_backend_uses() -> None:
    said = [{"loss/train": 0.5, "loss/entropy": 1.0, "odd": 3.0}, {"loss/train": 0.25}]
    assert steps_of(said, 10) == [
        {"tokens": 5.0, "seconds": 0.0, "loss": 0.5},
        {"tokens": 5.0, "seconds": 0.0, "loss": 0.25},
    ]


def _wait_for_end(service: HostedService) -> None:
    import time

    deadline = time.monotonic() + 60
    while service.jobs["job-1"].events[-1:] == [] or service.jobs["job-1"].events[-1]["type"] != "training_ended":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _kill(*_: Any, **__: Any) -> Any:
    raise Killed


@pytest.mark.parametrize("offers", [["somebody/New-8B", "somebody/Other"], None], ids=["listed", "no list"])
def test_a_base_model_that_only_the_service_knows_is_trained(
    settings: Settings, database: Database, ready: Ready, service: HostedService, offers: list[str] | None
) -> None:
    service.offers = offers
    trained = train_window(settings.replace(base_model="somebody/New-8B"), database, FIRST)
    assert trained.checkpoint and trained.checkpoint.base_model == "somebody/New-8B"
    assert service.calls["models"] == 1


def test_a_base_model_that_is_not_on_the_services_list_is_refused_before_anything_is_spent(
    settings: Settings, database: Database, ready: Ready, service: HostedService
) -> None:
    service.offers = ["somebody/New-8B"]
    with pytest.raises(BaseModelRefused, match=r"does not train somebody/Else-8B; set BASE_MODEL to one of somebody/N"):
        train_window(settings.replace(base_model="somebody/Else-8B"), database, FIRST)
    assert (service.calls["register"], service.calls["submit"]) == (0, 0)
