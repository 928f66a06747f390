"""Training a window against the ledger: once, in order, and taken up after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.errors import ChainConflict, CorruptLedger, PermanentError
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import get_window, upsert_window
from babylon_assets.training import window_training
from babylon_assets.training.backends.embedded import backend as embedded
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.planning import plan_training
from babylon_assets.training.selection import Selection
from babylon_assets.training.window_training import _count_tokens, train_window
from tests.training.backends.test_embedded import answered
from tests.training.conftest import Ready
from tests.training.test_selection import dataset, sample

FIRST, SECOND, THIRD = "2026-11-05T14:00", "2026-11-05T15:00", "2026-11-05T16:00"
CHAIN = "babylon-agent"


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(home=tmp_path, base_model=str(tiny_base), gradient_tokens=512, lora_rank=4, gate=False)


@pytest.fixture
def samples(tiny_base: Path) -> list[Sample]:
    return answered(tiny_base, groups=3, size=3)


def chain_of(database: Database) -> list[tuple[int, str | None]]:
    with database.connect() as conn:
        return [(checkpoint.step, checkpoint.window_id) for checkpoint in checkpoints.chain(conn, CHAIN)]


def folders(settings: Settings) -> list[str]:
    parent = checkpoint_folder(settings, CHAIN, 1).parent
    return sorted(folder.name for folder in parent.iterdir()) if parent.is_dir() else []


def test_each_window_goes_on_from_the_one_before(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(FIRST, samples)
    ready(SECOND, samples)
    with database.connect() as conn:
        upsert_window(conn, FIRST, trainable_tokens=1234)
    one = train_window(settings, database, FIRST, "run-1")
    two = train_window(settings, database, SECOND, "run-2")
    assert (one.status, two.status) == ("trained", "trained")
    assert one.checkpoint and two.checkpoint and two.parent
    assert two.parent.id == one.checkpoint.id
    assert one.parent and one.parent.step == 0
    assert one.trained_tokens == sum(len(one.token_ids or []) for one in samples)
    assert one.checkpoint is not None and one.checkpoint.metrics["trained_tokens"] == one.trained_tokens
    with database.connect() as conn:
        row = get_window(conn, FIRST)
    assert row is not None and row.trainable_tokens == 1234  # what its dataset has, before training and after
    assert two.checkpoint.dagster_run_id == "run-2"
    assert chain_of(database) == [(0, None), (1, FIRST), (2, SECOND)]
    with database.connect() as conn:
        row = get_window(conn, SECOND)
    assert row and (row.status, row.checkpoint_id, row.parent_id) == ("trained", two.checkpoint.id, one.checkpoint.id)


def test_the_same_dataset_is_never_trained_twice(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(FIRST, samples)
    one = train_window(settings, database, FIRST)
    again = train_window(settings, database, FIRST)
    assert again.status == "unchanged"
    assert again.checkpoint == one.checkpoint
    assert again.trained_tokens == one.trained_tokens
    assert folders(settings) == ["0001"]


def test_nothing_to_train_on_is_skipped_with_the_reason_and_makes_no_checkpoint(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    tied = [sample(n, reward=1.0) for n in range(4)]
    ready(FIRST, tied)
    result = train_window(settings, database, FIRST)
    assert (result.status, result.checkpoint, result.trained_tokens) == ("skipped", None, 0)
    assert "group has no spread (4)" in result.reason
    assert folders(settings) == []
    with database.connect() as conn:
        row = get_window(conn, FIRST)
        states = conn.execute("SELECT state, reason FROM babylon_training.training_jobs").fetchall()
    assert row and (row.status, row.checkpoint_id, row.reason) == ("skipped", None, result.reason)
    assert states == [("skipped", result.reason)]
    ready(SECOND, samples)
    assert train_window(settings, database, SECOND).status == "trained"


def test_a_thin_window_is_passed_through(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(FIRST, samples)
    one = train_window(settings, database, FIRST)
    ready(SECOND, samples[:1])
    with database.connect() as conn:
        upsert_window(conn, SECOND, status="thin", reason="1 agent")
    thin = train_window(settings, database, SECOND)
    assert (thin.status, thin.checkpoint, thin.parent) == ("thin", None, one.checkpoint)
    with database.connect() as conn:
        row = get_window(conn, SECOND)
    assert row and one.checkpoint and row.parent_id == one.checkpoint.id


def test_a_window_behind_the_head_does_not_rewrite_the_chain(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(SECOND, samples)
    train_window(settings, database, SECOND)
    ready(FIRST, samples)
    assert train_window(settings, database, FIRST).status == "superseded"
    ready(SECOND, samples[:6])
    assert train_window(settings, database, SECOND).status == "superseded"
    assert chain_of(database) == [(0, None), (1, SECOND)]


class Killed(BaseException):
    """Stands for the end of the process at this very place."""


def test_a_run_killed_between_checkpoint_and_ledger_is_taken_up(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(FIRST, samples)
    with monkeypatch.context() as patch:
        patch.setattr(window_training, "_record", _kill)
        with pytest.raises(Killed):
            train_window(settings, database, FIRST)
    assert (folders(settings), chain_of(database)) == (["0001"], [(0, None)])
    written = (checkpoint_folder(settings, CHAIN, 1) / "adapter_model.safetensors").stat().st_mtime_ns
    result = train_window(settings, database, FIRST)
    assert result.status == "trained"
    assert result.trained_tokens > 0
    assert chain_of(database) == [(0, None), (1, FIRST)]
    folder = checkpoint_folder(settings, CHAIN, 1)
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == written
    with database.connect() as conn:
        states = [row[0] for row in conn.execute("SELECT state FROM babylon_training.training_jobs ORDER BY id")]
    assert states == ["failed", "trained"]


def test_a_training_that_is_ended_by_a_signal_is_not_said_to_go_on(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    ready(FIRST, samples)
    with monkeypatch.context() as patch:
        patch.setattr(window_training, "_make", end)
        with pytest.raises(KeyboardInterrupt):
            train_window(settings, database, FIRST)
    with database.connect() as conn:
        [(state, reason)] = conn.execute("SELECT state, reason FROM babylon_training.training_jobs")
    assert (state, reason) == ("failed", "it was ended before it was done")
    assert train_window(settings, database, FIRST).status == "trained"


def test_a_checkpoint_of_something_else_is_not_taken_up(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(FIRST, samples)
    with monkeypatch.context() as patch:
        patch.setattr(window_training, "_record", _kill)
        with pytest.raises(Killed):
            train_window(settings, database, FIRST)
    dataset = ready(FIRST, samples[:6])
    result = train_window(settings, database, FIRST)
    assert result.checkpoint and result.checkpoint.dataset_id == dataset.id
    assert folders(settings) == ["0001"]


def test_the_id_is_the_same_with_and_without_a_kill(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(FIRST, samples)
    planned = plan_training(settings, database, ready(FIRST, samples))
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "train_embedded", _kill)
        with pytest.raises(Killed):
            train_window(settings, database, FIRST)
    result = train_window(settings, database, FIRST)
    assert result.checkpoint and result.checkpoint.id == content_id(planned.manifest)


def test_another_base_model_needs_another_chain(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample], taught_base: Path
) -> None:
    ready(FIRST, samples)
    train_window(settings, database, FIRST)
    ready(SECOND, samples)
    with pytest.raises(ChainConflict, match="BABYLON_MODEL"):
        train_window(settings.replace(base_model=str(taught_base)), database, SECOND)


def test_a_lost_parent_is_said_and_nothing_is_made_up(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    import shutil

    ready(FIRST, samples)
    train_window(settings, database, FIRST)
    ready(SECOND, samples)
    shutil.rmtree(checkpoint_folder(settings, CHAIN, 1))
    with pytest.raises(CorruptLedger, match="restore"):
        train_window(settings, database, SECOND)
    assert chain_of(database) == [(0, None), (1, FIRST)]


def test_nothing_is_trained_from_weights_that_are_not_those_of_the_ledger(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(FIRST, samples)
    train_window(settings, database, FIRST)
    ready(SECOND, samples)
    weights = checkpoint_folder(settings, CHAIN, 1) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptLedger, match="not those that the ledger recorded; restore"):
        train_window(settings, database, SECOND)
    assert chain_of(database) == [(0, None), (1, FIRST)]


def test_a_window_without_a_dataset_is_refused(settings: Settings, database: Database) -> None:
    with pytest.raises(PermanentError, match="training_datasets"):
        train_window(settings, database, FIRST)


def _kill(*_: Any, **__: Any) -> Any:
    raise Killed


def test_every_token_of_a_pass_that_count_tokens_is_accounted_for(samples: list[Sample]) -> None:
    kept = [msgspec.structs.replace(sample, tokens=20, token_ids=None) for sample in samples]
    data, total = dataset(*kept), 20 * len(kept)
    chosen = Selection(kept[:-1], [], {"policy more than 4 checkpoints behind": 1})
    steps = [{"tokens": 30.0}, {"tokens": 12.0, "undone": 1.0}]
    assert _count_tokens(data, Selection(kept, [], {}), [{"tokens": float(total)}]) == {"trained_tokens": total}
    counted = _count_tokens(data, chosen, steps)
    assert counted == {
        "trained_tokens": 30,
        "undone_tokens": 12,
        "unseen_tokens": total - 62,
        "left_out_tokens": 20,
    }
    assert sum(counted.values()) == sum(sample.tokens for sample in data.samples)
