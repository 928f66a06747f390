"""A checkpoint that is trained again from the ledger is the same, and one that was changed is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.training import planning
from babylon_assets.training.reproduction import reproduce
from babylon_assets.training.step_memory import activation_bytes
from babylon_assets.training.window_training import train_window
from tests.training.backends.test_embedded import answered

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"


@pytest.fixture
def trained(database: Database, tmp_path: Path, tiny_base: Path) -> tuple[Settings, list[Checkpoint]]:
    """Two windows, trained one after the other."""
    settings = Settings(gate=False, home=tmp_path / "home", base_model=str(tiny_base), gradient_tokens=512, lora_rank=4)
    samples: list[Sample] = answered(tiny_base, groups=3, size=3)
    for window in (FIRST, SECOND):
        dataset = Dataset(content_id([window, samples]), window, samples, {})
        with database.connect() as conn:
            save_dataset(conn, dataset)
            upsert_window(conn, window, status="ready", dataset_id=dataset.id, samples=len(samples))
        train_window(settings, database, window)
    with database.connect() as conn:
        return settings, checkpoints.chain(conn, settings.model_name)


def test_weights_come_out_the_same_whatever_the_settings_are_now(
    trained: tuple[Settings, list[Checkpoint]], database: Database, tmp_path: Path
) -> None:
    settings, (_, first, second) = trained
    changed = settings.replace(learning_rate=0.5, lora_rank=8, train_seed=3)
    for number, made in enumerate((first, second)):
        result = reproduce(changed, database, made, tmp_path / f"again-{number}")
        assert (result.same, result.versions) == (True, {})
    with database.connect() as conn:
        assert len(checkpoints.chain(conn, settings.model_name)) == 3


def test_what_was_trained_with_something_else_is_not_the_same(
    trained: tuple[Settings, list[Checkpoint]], database: Database, tmp_path: Path
) -> None:
    settings, (_, _, second) = trained
    other = replace(second, settings={**second.settings, "learning_rate": 0.002}, versions={"torch": "0.1"})
    result = reproduce(settings, database, other, tmp_path / "again")
    assert not result.same
    assert result.versions["torch"].startswith("0.1 -> ")


def test_what_the_memory_left_out_then_is_left_out_again(
    database: Database, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(gate=False, home=tmp_path / "home", base_model=str(tiny_base), gradient_tokens=512, lora_rank=4)
    first, *others = answered(tiny_base, groups=3, size=3)
    samples = [msgspec.structs.replace(first, prompt_token_ids=[5] * 400), *others]
    dataset = Dataset(content_id([FIRST, samples]), FIRST, samples, {})
    with database.connect() as conn:
        save_dataset(conn, dataset)
        upsert_window(conn, FIRST, status="ready", dataset_id=dataset.id, samples=len(samples))
    memory = 300 * (activation_bytes(str(tiny_base), again=True) or 0)
    monkeypatch.setattr(planning, "available_bytes", lambda: memory)
    train_window(settings, database, FIRST)
    with database.connect() as conn:
        [_, made] = checkpoints.chain(conn, settings.model_name)
    assert reproduce(settings, database, made, tmp_path / "again").same
    monkeypatch.setattr(planning, "available_bytes", lambda: 10 * memory)
    with pytest.raises(PermanentError, match=r"1 samples were larger than the memory suffices for .* and 0 are now"):
        reproduce(settings, database, made, tmp_path / "other")


def test_without_the_parents_weights_it_says_what_to_do(
    trained: tuple[Settings, list[Checkpoint]], database: Database, tmp_path: Path
) -> None:
    settings, (_, first, second) = trained
    (Path(first.path) / "adapter_model.safetensors").unlink()
    with pytest.raises(PermanentError, match="restore"):
        reproduce(settings, database, second, tmp_path / "again")
    with pytest.raises(PermanentError, match="on this machine"):
        reproduce(settings, database, replace(second, backend="serverless"), tmp_path / "other")
