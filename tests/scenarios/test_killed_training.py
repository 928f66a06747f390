"""Training that is killed with SIGKILL, at every place that matters, is taken up by the next run as if nothing was."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import Dataset
from babylon_assets.ledger import checkpoints, training_jobs
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database, open_database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.training.adapters import read_manifest
from babylon_assets.training.folders import checkpoint_folder
from babylon_assets.training.window_training import train_window
from tests.training.backends.test_embedded import answered

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"
CHAIN = "babylon-agent"
#: Each process is forked from one that has imported the libraries of training and trained nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])

PLACES = {
    "reading tensors": ("babylon_assets.training.backends.embedded.art_backend", "packed_tensors_from_dir", "before"),
    "first optimizer step": ("torch.optim", "AdamW.step", "after"),
    "writing the checkpoint": ("babylon_assets.training.adapters", "_write_optimizer", "after"),
    "before the checkpoint has its name": ("babylon_assets.training.adapters", "_sync", "before"),
    "after the checkpoint, before the ledger": ("babylon_assets.training.window_training", "_record", "before"),
    "inside the ledger's transaction": ("babylon_assets.ledger.checkpoints", "insert_checkpoint", "after"),
    "after the ledger, before anyone is told": ("babylon_assets.training.window_training", "_record", "after"),
}


def prepared(database: Database, home: Path, base: Path) -> Settings:
    """Two windows with a dataset each, the first of them trained."""
    settings = Settings(
        home=home,
        base_model=str(base),
        database_url=database.url,
        gradient_tokens=512,
        lora_rank=4,
        max_kl=100,
        gate=False,
    )
    samples = answered(base, groups=3, size=3)
    for window in (FIRST, SECOND):
        dataset = Dataset(content_id([window, samples]), window, samples, {})
        with database.connect() as conn:
            save_dataset(conn, dataset)
            upsert_window(conn, window, status="ready", dataset_id=dataset.id, samples=len(samples))
    train_window(settings, database, FIRST)
    return settings


@pytest.fixture(scope="module")
def undisturbed(server: object, migrated: str, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The second window's checkpoint where nothing was killed."""
    database = server.database(server.create(migrated))  # type: ignore[attr-defined]
    settings = prepared(database, tmp_path_factory.mktemp("undisturbed"), tiny_base)
    made = train_window(settings, database, SECOND).checkpoint
    assert made is not None
    return made


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_training_ends_with_one_checkpoint_and_the_same_id(
    place: str, database: Database, tmp_path: Path, tiny_base: Path, undisturbed: Checkpoint
) -> None:
    settings = prepared(database, tmp_path / "home", tiny_base)
    killed_at(place, settings)
    folder = checkpoint_folder(settings, CHAIN, 2)
    whole = place.startswith(("after", "inside"))
    assert (read_manifest(folder) is not None) == whole == folder.exists()
    result = train_window(settings, database, SECOND)
    assert result.status == ("unchanged" if place.startswith("after the ledger") else "trained")
    with database.connect() as conn:
        line = checkpoints.chain(conn, CHAIN)
        states = [job.state for job in training_jobs.list_jobs(conn, CHAIN, SECOND)]
    assert [(made.step, made.window_id) for made in line] == [(0, None), (1, FIRST), (2, SECOND)]
    assert (line[-1].id, line[-1].weights_sha256) == (undisturbed.id, undisturbed.weights_sha256)
    assert states == (["trained"] if place.startswith("after the ledger") else ["failed", "trained"])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["0001", "0002"]


def killed_at(place: str, settings: Settings) -> None:
    """Train the second window in a process that dies there."""
    run = PROCESSES.Process(target=train_until_killed, args=(settings, *PLACES[place]))
    run.start()
    run.join(120)
    assert run.exitcode == -signal.SIGKILL


def train_until_killed(settings: Settings, module: str, name: str, when: str) -> None:
    """Train; this process kills itself at a place, before a function runs or after it."""
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    def kill(*arguments: Any, **named: Any) -> None:
        if when == "after":
            original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, last, kill)
    train_window(settings, open_database(settings), SECOND)
