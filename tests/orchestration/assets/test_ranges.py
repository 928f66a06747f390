"""Many windows in one run: each recorded as it is done, none paying for another, in order where order matters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from babylon_assets.domain.errors import DatabaseUnavailable, PermanentError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import WindowRow, list_windows
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets import model_checkpoints, raw_trajectories, training_datasets
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.runtime import ranges
from babylon_assets.training.window_training import train_window
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World
from tests.servers import Server

DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
WINDOWS = (FIRST, SECOND, THIRD)


def run(world: World, *assets: str, windows: tuple[str, ...] = WINDOWS, **tags: str) -> dg.ExecuteInProcessResult:
    """One run of the assets over all windows, as a backfill makes it, with more of Dagster's tags."""
    chosen = [dg.AssetKey(asset) for asset in assets]
    job = world.definitions.resolve_implicit_job_def_def_for_assets(chosen)
    assert job is not None
    named = {"asset_partition_range_start": windows[0], "asset_partition_range_end": windows[-1], **tags}
    tags = {f"dagster/{name}": value for name, value in named.items()}
    return job.execute_in_process(
        instance=world.instance, tags=tags, asset_selection=chosen, raise_on_error=False, run_config=QUIET
    )


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def game_database(server: Server, three_played: str) -> Iterator[Database]:
    """A fresh database in which the three windows were played."""
    name = server.create(three_played)
    yield server.database(name)
    server.drop(name)


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None
    return str(event.step_failure_data.user_failure_data.description)


def recorded(world: World, asset: str) -> dict[str, int]:
    """How often each window was materialized."""
    records = world.instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    windows = [str(record.partition_key) for record in records]
    return {window: windows.count(window) for window in windows}


def results(world: World, asset: str, check: str) -> dict[str | None, bool]:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    records = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    events = [record.event.dagster_event for record in records if record.event]
    found = [
        event.asset_check_evaluation_data for event in events if event and event.event_type_value.endswith("UATION")
    ]
    return {each.partition: each.passed for each in found}


def poison(
    world: World, window: str, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception
) -> None:
    """Let one window fail in one function."""
    original = getattr(module, name)

    def failing(*arguments: Any) -> Any:
        if window in arguments:
            raise error
        return original(*arguments)

    monkeypatch.setattr(module, name, failing)


def test_the_whole_line_over_many_windows_is_one_run(world: World) -> None:
    result = run(world, *DATA, "model_checkpoints")
    assert result.success
    assert len(world.instance.get_runs()) == 1
    for asset in (*DATA, "model_checkpoints"):
        assert recorded(world, asset) == dict.fromkeys(WINDOWS, 1)
        assert all("dagster/data_version" in tags(world, asset, window) for window in WINDOWS)
    with world.database.connect() as conn:
        line = checkpoints.chain(conn, "babylon-agent")
    assert [made.window_id for made in line] == [None, *WINDOWS]


def tags(world: World, asset: str, window: str) -> dict[str, str]:
    filtered = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[window])
    [record] = world.instance.fetch_materializations(filtered, limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.tags or {})


def told(world: World, asset: str, window: str) -> tuple[Any, dict[str, str]]:
    """Metadata and tags, but for the places of the parents' events in the log: each run adds events of its own."""
    kept = {name: "an event" if "event_pointer" in name else tag for name, tag in tags(world, asset, window).items()}
    return world.metadata(asset, window), kept


def test_a_range_leaves_what_single_runs_leave(world: World) -> None:
    run(world, *DATA)
    names = ("raw_trajectories", "training_datasets")
    together = {(asset, window): told(world, asset, window) for asset in names for window in WINDOWS}
    for window in WINDOWS:
        assert run(world, *DATA, windows=(window,)).success
    for (asset, window), found in together.items():
        assert told(world, asset, window) == found
        assert recorded(world, asset)[window] == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (dg.DagsterInvariantViolationError("unknown"), "DagsterInvariantViolationError: unknown"),
    ],
)
def test_a_bad_window_costs_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    poison(world, SECOND, monkeypatch, raw_trajectories, "copy_window", error)
    told = failure(run(world, *DATA))
    assert told == f"1 of 3 windows failed, the others are done. {SECOND}: {said}"
    assert recorded(world, "training_datasets") == {FIRST: 1, THIRD: 1}
    assert (world.row(SECOND).status, world.row(SECOND).reason) == ("failed", said)
    monkeypatch.undo()
    assert run(world, *DATA).success
    assert world.row(SECOND).status == "ready"


def test_a_window_that_fails_late_keeps_its_early_stages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(world, FIRST, monkeypatch, training_datasets, "freeze_window", ZeroDivisionError("a bug"))
    assert not run(world, *DATA).success
    assert recorded(world, "scored_trajectories") == dict.fromkeys(WINDOWS, 1)
    assert recorded(world, "training_datasets") == {SECOND: 1, THIRD: 1}


def test_a_server_that_is_away_for_a_moment_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babylon_assets.orchestration.runtime.failures.FIRST_WAIT_SECONDS", 0.01)
    original, left = raw_trajectories.copy_window, [2]

    def away(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise DatabaseUnavailable("gone")
        return original(*arguments)

    monkeypatch.setattr(raw_trajectories, "copy_window", away)
    assert run(world, *DATA).success
    assert left == [0]


def test_training_stops_where_a_window_failed_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(world, *DATA).success

    def fails(settings: Any, database: Any, window: str, run_id: str) -> Any:
        if window == SECOND:
            raise ZeroDivisionError("a bug")
        return train_window(settings, database, window, run_id)

    monkeypatch.setattr(model_checkpoints, "train_window", fails)
    told = failure(run(world, "model_checkpoints"))
    assert told.startswith("2 of 3 windows failed, the others are done.")
    assert f"{THIRD}: left out: {SECOND} before it failed" in told
    assert recorded(world, "model_checkpoints") == {FIRST: 1}
    assert (world.row(THIRD).status, world.row(THIRD).dataset_id is None) == ("ready", False)
    monkeypatch.undo()
    assert run(world, "model_checkpoints").success
    assert recorded(world, "model_checkpoints") == {FIRST: 2, SECOND: 1, THIRD: 1}
    with world.database.connect() as conn:
        assert len(checkpoints.chain(conn, "babylon-agent")) == 4


def test_every_check_has_a_result_per_window(world: World) -> None:
    run(world, *DATA)
    for asset, names in (
        ("raw_trajectories", (checks.COMPLETE, checks.QUARANTINE)),
        ("scored_trajectories", (checks.REWARD_RANGE,)),
        ("training_datasets", (checks.TOKENS, checks.HINDSIGHT, checks.STABLE)),
    ):
        for name in names:
            found = results(world, asset, name)
            assert set(found) == set(WINDOWS)
            assert found[FIRST], name


def test_a_dataset_that_was_tampered_with_stops_its_window_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = freeze_window

    def frozen(installation: Any, window: str) -> Any:
        dataset, row = original(installation, window)
        if window == SECOND:
            world.execute(
                "UPDATE babylon_training.training_datasets SET body = (SELECT body FROM"
                " babylon_training.training_datasets WHERE window_id = %s) WHERE window_id = %s",
                FIRST,
                SECOND,
            )
        return dataset, row

    monkeypatch.setattr(training_datasets, "freeze_window", frozen)
    told = failure(run(world, *DATA))
    assert f"{SECOND}: the check ids_stable of training_datasets failed" in told
    assert results(world, "training_datasets", checks.STABLE) == {FIRST: True, SECOND: False, THIRD: True}
    assert (world.row(SECOND).status, world.row(SECOND).dataset_id) == ("failed", None)
    assert "has no dataset yet" in failure(run(world, "model_checkpoints"))
    assert world.row(FIRST).status == "trained"


def test_a_prompt_that_names_a_result_is_not_trained_on(world: World) -> None:
    world.execute(
        r"""UPDATE public."trajectories" SET "stepsJson" = regexp_replace("stepsJson",
                '"systemPrompt":"(\\.|[^"\\])*"', '"systemPrompt":"{\\"finalPnL\\": 12}"', 'g')
            WHERE "windowId" = %s""",
        FIRST,
    )
    world.execute("DELETE FROM babylon_training.inference_calls")
    told = failure(run(world, *DATA, "model_checkpoints"))
    assert "the prompt names finalPnL` and 47 more" in told
    assert results(world, "training_datasets", checks.HINDSIGHT) == {FIRST: False, SECOND: True, THIRD: True}
    assert world.row(FIRST).dataset_id is None


def test_an_hour_that_is_not_over_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_trajectories, "datetime", Early)
    told = failure(run(world, *DATA))
    assert told.startswith("1 of 3 windows failed")
    assert f"{THIRD}: the check source_complete of raw_trajectories failed: the window is not over" in told
    assert recorded(world, "training_datasets") == {FIRST: 1, SECOND: 1}
    monkeypatch.undo()
    assert run(world, *DATA).success


class Early:
    """The clock in the middle of the last window."""

    @staticmethod
    def now(zone: Any) -> Any:
        return HOURLY.bounds(THIRD)[0].astimezone(zone) + timedelta(minutes=30)


def test_a_check_that_is_asked_for_alone_gets_its_result(world: World) -> None:
    run(world, *DATA)
    job = world.definitions.resolve_implicit_job_def_def_for_assets([dg.AssetKey(name) for name in DATA])
    assert job is not None
    key = dg.AssetCheckKey(dg.AssetKey("training_datasets"), checks.STABLE)
    asked = job.get_subset(asset_selection=set(), asset_check_selection={key})
    assert asked.execute_in_process(instance=world.instance, partition_key=FIRST, run_config=QUIET).success
    history = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [record.status.value for record in history].count("SUCCEEDED") == 4


def test_one_asset_can_be_made_alone(world: World) -> None:
    run(world, *DATA)
    assert run(world, "scored_trajectories").success
    assert recorded(world, "scored_trajectories") == dict.fromkeys(WINDOWS, 2)
    assert recorded(world, "training_datasets") == dict.fromkeys(WINDOWS, 1)


def test_a_window_that_has_not_begun_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> list[WindowRow]:
        with world.database.connect() as conn:
            return list_windows(conn)

    before = rows()
    monkeypatch.setattr(ranges, "_now", lambda: HOURLY.parse(FIRST).start - timedelta(seconds=1))
    with pytest.raises(PermanentError, match=f"{FIRST} has not begun; materialize it when it is over"):
        world.run(FIRST)
    assert rows() == before
    assert world.instance.get_materialized_partitions(dg.AssetKey("raw_trajectories")) == set()
