"""A run that continues a failed one from its failure does what is left, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from babylon_assets.ledger.database import Database
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets import model_checkpoints, scored_trajectories
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World
from tests.orchestration.assets.test_ranges import DATA, WINDOWS, failure, poison, recorded, run
from tests.servers import Server


@pytest.fixture
def game_database(server: Server, three_played: str) -> Iterator[Database]:
    """A fresh database in which the three windows were played."""
    name = server.create(three_played)
    yield server.database(name)
    server.drop(name)


def continuing(failed: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """How Dagster names a run that continues another from its failure."""
    return {"parent_run_id": failed.run_id, "is_resume_retry": "true"}


def test_what_a_run_before_has_done_is_not_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(world, SECOND, monkeypatch, scored_trajectories, "score_window", ZeroDivisionError("a bug"))
    first = run(world, *DATA)
    second = run(world, *DATA, **continuing(first))
    assert failure(second) == f"1 of 3 windows failed, the others are done. {SECOND}: ZeroDivisionError: a bug"
    monkeypatch.undo()
    assert run(world, *DATA, **continuing(second)).success
    assert recorded(world, "raw_trajectories") == {FIRST: 1, SECOND: 3, THIRD: 1}  # an hour is done again as a whole
    for asset in DATA[1:]:
        assert recorded(world, asset) == dict.fromkeys(WINDOWS, 1)


def test_training_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(world, *DATA).success
    poison(world, SECOND, monkeypatch, model_checkpoints, "train_window", ZeroDivisionError("a bug"))
    stopped = run(world, "model_checkpoints")
    assert recorded(world, "model_checkpoints") == {FIRST: 1}
    monkeypatch.undo()
    assert run(world, "model_checkpoints", **continuing(stopped)).success
    assert recorded(world, "model_checkpoints") == dict.fromkeys(WINDOWS, 1)


def test_a_window_that_its_last_check_stopped_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = checks.stored_dataset

    def changed(conn: Any, window: str, dataset_id: str, keys: Any) -> list[dg.AssetCheckResult]:
        if window != SECOND:
            return looked(conn, window, dataset_id, keys)
        return [dg.AssetCheckResult(passed=False, check_name=checks.STABLE, description="it was changed")]

    monkeypatch.setattr(checks, "stored_dataset", changed)
    stopped = run(world, *DATA)
    assert not stopped.success
    assert recorded(world, "training_datasets") == dict.fromkeys(WINDOWS, 1)  # what the check looked at is shown
    monkeypatch.undo()
    # as where the run is killed before it notes the failure
    world.execute("UPDATE babylon_training.windows SET status = 'ready', reason = NULL WHERE window_id = %s", SECOND)
    assert run(world, *DATA, **continuing(stopped)).success
    assert recorded(world, "training_datasets") == {FIRST: 1, SECOND: 2, THIRD: 1}
    assert world.row(SECOND).status == "ready"


def test_a_run_of_all_steps_repeats_them(world: World) -> None:
    windows = (FIRST,)
    done = run(world, *DATA, windows=windows)
    again = run(world, *DATA, windows=windows, parent_run_id=done.run_id)
    assert again.success
    assert recorded(world, "raw_trajectories") == {FIRST: 2}
