"""A range of windows brought to its end: what is done is not repeated, what fails stops only what depends on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.cli.backfill import Backfill, run_backfill, windows_between
from babylon_assets.config.settings import subprocess_environment
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.assets import raw_trajectories
from babylon_assets.orchestration.runtime import Line, open_instance
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World
from tests.scenarios.conftest import babylon_here, start
from tests.servers import Server

EMPTY = HOURLY.previous(FIRST)
WINDOWS = [EMPTY, FIRST, SECOND, THIRD]


@pytest.fixture
def game_database(server: Server, three_played: str) -> Iterator[Database]:
    """A fresh database in which the three windows were played."""
    name = server.create(three_played)
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def world(world: World) -> Iterator[World]:
    """As always, with the instance in PostgreSQL."""
    world = world.having(database_url=world.database.url)
    with open_instance(world.settings, world.database) as instance:
        world.instance = instance
        yield world


def run(world: World) -> Backfill:
    return run_backfill(world.settings, world.database, Line(world.definitions, world.instance), WINDOWS)


def chain(world: World) -> list[str | None]:
    with world.database.connect() as conn:
        return [made.window_id for made in checkpoints.chain(conn, "babylon-agent")]


def test_a_range_with_an_empty_window_is_trained_in_order_and_once_and_read_again_when_it_changed(world: World) -> None:
    done = run(world)
    assert (done.error, done.states, done.failed) == (None, {"empty": 1, "trained": 3}, {})
    assert chain(world) == [None, FIRST, SECOND, THIRD]
    assert Line(world.definitions, world.instance).materialized("promoted_model") == {FIRST, SECOND, THIRD}
    again = run(world)
    assert (again.read, again.trained, again.runs) == (0, 0, [])
    assert again.states == done.states
    world.execute('UPDATE public."trajectories" SET "updatedAt" = now() WHERE "windowId" = %s', SECOND)
    changed = run(world)
    assert (changed.read, changed.trained, len(changed.runs)) == (1, 0, 1)
    assert chain(world) == [None, FIRST, SECOND, THIRD]


def test_a_poisoned_window_stops_training_there_and_goes_on_when_it_is_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = raw_trajectories.copy_window

    def poisoned(installation: Any, window: str) -> str:
        if window == SECOND:
            raise PermanentError("poisoned; mend it")
        return original(installation, window)

    monkeypatch.setattr(raw_trajectories, "copy_window", poisoned)
    done = run(world)
    assert str(done.error).startswith(f"1 of 3 windows failed, the others are done. {SECOND}: poisoned")
    assert done.states == {"empty": 1, "trained": 1, "failed": 1, "ready": 1}
    assert chain(world) == [None, FIRST]
    monkeypatch.undo()
    again = run(world)
    assert (again.error, again.read) == (None, 1)
    assert chain(world) == [None, FIRST, SECOND, THIRD]


def test_without_training_the_data_is_enough(world: World) -> None:
    world = world.having(train_rl_local=False)
    done = run(world)
    assert (done.trained, done.states) == (0, {"empty": 1, "ready": 3})


def test_the_command_speaks_json_and_shows_no_progress_among_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = subprocess_environment(world.settings, world.database.dagster_url)
    environment |= {"DATABASE_URL": world.database.url, "TRAIN_RL_LOCAL": "false"}
    shown = CliRunner().invoke(app, ["backfill", FIRST, SECOND, "--json"], env=environment)
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    assert (told["windows"], told["read"], told["states"], told["error"]) == (2, 2, {"ready": 2}, None)
    world.execute('DROP TABLE public."market_outcomes"')
    world.execute("UPDATE babylon_training.windows SET dataset_id = NULL")
    shown = CliRunner().invoke(app, ["backfill", FIRST, SECOND, "--json"], env=environment)
    assert shown.exit_code == 1
    assert set(json.loads(shown.stdout)["failed"]) == {FIRST, SECOND}
    assert "market_outcomes" in shown.stderr


@pytest.mark.slow
def test_a_backfill_that_is_killed_while_it_trains_goes_on_and_repeats_nothing(world: World) -> None:
    environment = subprocess_environment(world.settings, world.database.dagster_url)
    with start(environment, "backfill", FIRST, THIRD) as process:
        while count(world, f"{JOBS} WHERE window_id = %s AND state = 'training'", SECOND) == 0:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        process.kill()
    before = kept(world)
    assert [window for window, *_ in before] == [FIRST]
    told = json.loads(babylon_here(environment, "backfill", FIRST, THIRD, "--json"))
    assert (told["error"], told["states"]) == (None, {"trained": 3})
    assert (told["read"], told["trained"], len(told["runs"])) == (0, 2, 2)
    assert chain(world) == [None, FIRST, SECOND, THIRD]
    assert kept(world)[:1] == before
    assert count(world, f"{JOBS} WHERE state = 'trained'") == 3
    assert count(world, f"{JOBS} WHERE state NOT IN ('trained', 'failed')") == 0
    for asset in ("raw_trajectories", "training_datasets", "model_checkpoints", "promoted_model"):
        records = world.instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
        assert sorted(str(record.partition_key) for record in records) == [FIRST, SECOND, THIRD], asset
    assert world.instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)) == []


JOBS = "SELECT count(*) FROM babylon_training.training_jobs"


def count(world: World, query: str, *parameters: str) -> int:
    with world.database.connect() as conn:
        row = conn.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return int(row[0])


def kept(world: World) -> list[tuple[Any, ...]]:
    """Every checkpoint after the root: window, id, when it was made."""
    with world.database.connect() as conn:
        line = checkpoints.chain(conn, "babylon-agent")
    return [(made.window_id, made.id, made.created_at) for made in line if made.step]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2026-11-05T15:00", "2026-11-05T14:00", "give the oldest window first: .* 2026-11-05T14:00 2026-11-05T15:00"),
        ("2024-11-05T15:00", "2026-11-05T14:00", "17,520 windows; give at most 8,784 at once"),
    ],
)
def test_a_range_that_is_none_is_refused(first: str, last: str, said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        windows_between(first, last, HOURLY)


def test_a_range_ends_before_the_running_hour() -> None:
    with pytest.raises(PermanentError, match="is not over yet"):
        windows_between("2026-11-05T15:00", HOURLY.of(datetime.now(UTC)).id, HOURLY)
