"""What the clock starts at night: ticks of the schedules, and their jobs on a trained chain and a real instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.simulated import market_evaluation
from babylon_assets.ledger import checkpoints, evaluations, promotions
from babylon_assets.ledger.database import chain_lock
from babylon_assets.orchestration.runtime import open_instance
from babylon_assets.orchestration.runtime.event_log import EventLog
from babylon_assets.serving.engine.engine import Engine
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World, small_game
from tests.servers import Server

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
CHAIN = "babylon-agent"
BEFORE = HOURLY.previous(FIRST)


@pytest.fixture(scope="module")
def world(
    server: Server, three_played: str, taught_base: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Four windows are trained and promoted; runs are in PostgreSQL."""
    name = server.create(three_played)
    database = server.database(name)
    small = small_game(tmp_path_factory.mktemp("nightly"), taught_base)
    settings = small.replace(database_url=database.url, gate=False, nightly_seeds=9, keep_checkpoints=1)
    with open_instance(settings, database) as instance:
        made = World(settings, database, instance, engine)
        made.play(BEFORE)
        for window in (BEFORE, FIRST, SECOND, THIRD):
            made.run(window)
        yield made
    server.drop(name)


def night(world: World, name: str) -> dg.ExecuteInProcessResult:
    """A tick of the schedule, and the run of the job that it asks for."""
    schedule = next(each for each in world.definitions.schedules or () if each.name == name)
    assert isinstance(schedule, dg.ScheduleDefinition)
    context = dg.build_schedule_context(world.instance, scheduled_execution_time=datetime(2026, 11, 6, 3, tzinfo=UTC))
    [request] = schedule.evaluate_tick(context).run_requests or []
    return world.definitions.resolve_job_def(schedule.job_name).execute_in_process(
        instance=world.instance, run_config=QUIET, tags=dict(request.tags), raise_on_error=False
    )


def test_the_live_policy_is_examined_once_on_more_markets(world: World) -> None:
    assert night(world, "nightly_evaluation").success
    with world.database.connect() as conn:
        live = promotions.promoted(conn, CHAIN)
        assert live is not None and live.window_id == THIRD
        version = market_evaluation.MarketBenchmark(world.settings).version(9)
        found = evaluations.get(conn, live.id, market_evaluation.NAME, version)
    assert found is not None and found.value is not None
    assert len(found.seeds or ()) == 9
    told = observed(world)
    assert list(told)[:2] == ["status", "checkpoint"]  # an observation stands above what was materialized
    assert (told["checkpoint"], told["market_seeds"]) == (f"{CHAIN}@4", 9)
    assert told["market_reward"] == pytest.approx(found.value, rel=1e-3)  # it is rounded for people
    assert told["gain_on_base_low"] <= told["gain_on_base"] <= told["gain_on_base_high"]

    again = night(world, "nightly_evaluation")
    assert again.success
    assert len(observations(world)) == 1
    with world.database.connect() as conn:
        kept = evaluations.get(conn, live.id, market_evaluation.NAME, version)
    assert kept == found


def observations(world: World) -> list[Any]:
    records = dg.AssetRecordsFilter(dg.AssetKey("checkpoint_evaluations"), asset_partitions=[THIRD])
    return list(world.instance.fetch_observations(records, limit=10).records)


def observed(world: World) -> dict[str, Any]:
    [record] = observations(world)
    assert record.asset_observation is not None
    return {name: value.value for name, value in record.asset_observation.metadata.items()}


def test_weights_are_pruned_unless_a_training_is_running_or_nobody_said_how_many(world: World) -> None:
    def weights() -> list[bool]:
        with world.database.connect() as conn:
            return [bool(one.path) and Path(one.path).is_dir() for one in checkpoints.chain(conn, CHAIN)[1:]]

    # needed are the live one, the one that was live before, their parents, and the best of an evaluation
    world.execute("DELETE FROM babylon_training.checkpoint_evaluations")
    with chain_lock(world.database, CHAIN):
        assert night(world, "nightly_pruning").success
    assert weights() == [True, True, True, True]
    assert night(world, "nightly_pruning").success
    assert weights() == [False, True, True, True]
    result = night(world.having(keep_checkpoints=None), "nightly_pruning")
    assert not result.success
    [failed] = [event for event in result.all_events if event.is_step_failure]
    assert SettingsError.__name__ in str(failed.step_failure_data.error)


def test_old_logs_go_and_what_was_made_and_checked_stays(world: World) -> None:
    log = world.instance.event_log_storage
    assert isinstance(log, EventLog)
    before = standing(world)
    run = world.instance.get_runs(dg.RunsFilter(job_name="train_window"), limit=1)[0]
    assert night(world, "nightly_upkeep").success
    many = len(world.instance.all_logs(run.run_id))
    assert many > 20
    removed = log.remove_logs(datetime.now(UTC) + timedelta(minutes=1), at_once=7)
    left = world.instance.all_logs(run.run_id)
    assert removed > 50
    assert 0 < len(left) < many / 2
    assert {str(each.dagster_event_type).partition(".")[2].partition("_")[0] for each in left} == {"ASSET"}
    assert standing(world) == before
    assert world.instance.get_run_by_id(run.run_id) is not None
    assert log.remove_logs(datetime.now(UTC) + timedelta(minutes=1)) == 0
    world.run(SECOND)


def standing(world: World) -> tuple[set[str], dict[str, Any], bool]:
    made = world.instance.get_materialized_partitions(dg.AssetKey("promoted_model"))
    return made, world.metadata("training_datasets", FIRST), world.check("training_datasets", "ids_stable").passed


@pytest.mark.parametrize(
    ("changes", "stopped"),
    [
        ({"keep_checkpoints": 24}, set()),
        ({}, {"nightly_pruning"}),
        ({"automation": False, "keep_checkpoints": 24}, None),
    ],
)
def test_the_schedules_run_by_themselves_where_the_settings_say_so(changes: Any, stopped: set[str] | None) -> None:
    schedules = list(build_definitions(Settings(**changes)).schedules or ())
    found = {each.name for each in schedules if each.default_status is dg.DefaultScheduleStatus.STOPPED}
    assert len(schedules) == 4
    assert found == ({each.name for each in schedules} if stopped is None else stopped)
