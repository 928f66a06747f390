"""Log-probabilities that are recomputed are those that were recorded, and text-only answers are trained with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.training.backends.embedded.in_process import train_embedded
from babylon_assets.training.capacity import context_of
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.recompute import leave_out_longer, recomputed
from babylon_assets.training.reproduction import reproduce
from babylon_assets.training.selection import Selection
from babylon_assets.training.window_training import train_window
from tests.ledger.values import sample
from tests.training.backends.test_embedded import answered, request

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"


@pytest.fixture
def settings(tmp_path: Path, taught_base: Path) -> Settings:
    return Settings(
        gate=False, home=tmp_path / "home", base_model=str(taught_base), gradient_tokens=512, lora_rank=8, max_kl=100
    )


def finished(samples: list[Sample]) -> list[Sample]:
    """Answers that ended by themselves: a cut one has no end of turn to recompute."""
    return [one for one in samples if (one.token_ids or [0])[-1] == 2 or len(one.token_ids or []) < 24]


def as_text(sample: Sample) -> Sample:
    return msgspec.structs.replace(sample, prompt_token_ids=None, token_ids=None, logprobs=None, trains_as="recompute")


def test_recomputed_is_what_was_recorded(taught_base: Path, settings: Settings) -> None:
    train_embedded(settings, request(taught_base, answered(taught_base)))
    for adapter in (None, checkpoint_folder(settings, "babylon-agent", 1)):
        recorded = finished(answered(taught_base, adapter))
        again = recomputed(str(taught_base), adapter, [as_text(one) for one in recorded])
        alike = [(one, new) for one, new in zip(recorded, again, strict=True) if one.token_ids == new.token_ids]
        assert len(alike) >= 0.8 * len(recorded) > 0
        for one, new in alike:
            assert new.prompt_token_ids == one.prompt_token_ids
            assert new.logprobs == pytest.approx(one.logprobs, abs=1e-4)
            assert new.trains_as == "policy_gradient"


def test_text_only_answers_are_trained_and_counted(settings: Settings, database: Database, taught_base: Path) -> None:
    texts = [as_text(one) for one in finished(answered(taught_base))]
    for window, policy_step in ((FIRST, 0), (SECOND, 1)):
        policy = {"policy": f"babylon-agent@{policy_step}", "policy_step": policy_step}
        samples = [msgspec.structs.replace(one, **policy) for one in texts]
        stranger = msgspec.structs.replace(texts[0], sample_id="x", policy="babylon-agent@7", policy_step=7)
        dataset = Dataset(content_id([window, samples]), window, [*samples, stranger], {})
        dataset = Dataset(content_id([window, dataset.samples]), window, dataset.samples, {})
        with database.connect() as conn:
            save_dataset(conn, dataset)
            upsert_window(conn, window, status="ready", dataset_id=dataset.id, samples=len(samples))
        result = train_window(settings, database, window)
        assert result.status == "trained"
        assert result.left_out["log-probabilities were not recorded"] == 1
        assert result.checkpoint and result.checkpoint.metrics["recomputed_samples"] == len(texts)
        assert (result.steps[0]["ratio_min"], result.steps[0]["ratio_max"]) == pytest.approx((1, 1), abs=1e-4)
    with database.connect() as conn:
        made = checkpoints.by_window(conn, "babylon-agent", SECOND)
    assert made and reproduce(settings, database, made, settings.home / "again").same


def test_what_the_models_context_has_no_room_for_is_left_out_and_counted(tiny_base: Path) -> None:
    context = context_of(str(tiny_base))
    assert context is not None
    fits, long = sample(0, prompt_token_ids=[1] * (context - 2)), sample(1, prompt_token_ids=[1] * (context - 1))
    fits, long = (msgspec.structs.replace(one, token_ids=[1, 2], logprobs=[-1.0, -1.0]) for one in (fits, long))
    texts = [
        msgspec.structs.replace(sample(number, trains_as="sft"), messages=[Message("user", text)], response="wait")
        for number, text in ((2, "short"), (3, "word " * context))
    ]
    chosen = leave_out_longer(Selection([fits, long], texts, {"skipped": 1}), str(tiny_base))
    assert [one.sample_id for one in (*chosen.policy_gradient, *chosen.sft)] == [fits.sample_id, texts[0].sample_id]
    assert chosen.left_out == {"skipped": 1, f"longer than the base model's context of {context} tokens": 2}
    assert leave_out_longer(Selection([fits], [], {}), "nobody/knows-this") == Selection([fits], [], {})
