"""Late data of a trained window, through the sensor, the jobs and the ledger: carried once, retrained, or left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.cli.train import train_beside
from babylon_assets.domain.late_data import carried
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger import checkpoints, late_samples, lineage
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.overview import read_report
from babylon_assets.ledger.scores import read_scores, revisions
from babylon_assets.orchestration.branch_datasets import freeze_for_branch
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Line, open_instance, window_range
from babylon_assets.serving.engine.engine import Engine
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World, small_game
from tests.orchestration.assets.test_provenance import stale
from tests.servers import Server

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
CHAIN = "babylon-agent"
LAST = 'id = (SELECT max(id) FROM public."trajectories" WHERE "windowId" = %s)'


@pytest.fixture
def game_database(server: Server, three_played: str) -> Iterator[Database]:
    """A fresh database in which the three windows were played."""
    name = server.create(three_played)
    yield server.database(name)
    server.drop(name)


@pytest.fixture
def world(tmp_path: Path, taught_base: Path, engine: Engine, game_database: Database) -> Iterator[World]:
    """The first window is trained without one agent's trajectory, which then comes late; runs are in PostgreSQL."""
    settings = small_game(tmp_path, taught_base).replace(
        database_url=game_database.url,
        gate=False,
        max_gradient_share=1.0,  # of six agents: another one changes what the others may give
    )
    with open_instance(settings, game_database) as instance:
        made = World(settings, game_database, instance, engine)
        made.execute(f'UPDATE public."trajectories" SET "isTrainingData" = false WHERE {LAST}', FIRST)
        made.run(FIRST)
        made.execute(
            f'UPDATE public."trajectories" SET "isTrainingData" = true, "updatedAt" = now() WHERE {LAST}', FIRST
        )
        yield made


def late_trajectory(world: World) -> str:
    with world.database.connect() as conn:
        row = conn.execute(
            f'SELECT "trajectoryId" FROM public."trajectories" WHERE {LAST}'.encode(), [FIRST]
        ).fetchone()
    assert row is not None
    return str(row[0])


def refresh(world: World) -> list[str]:
    """Ticks of the sensor for changed windows and the runs that they ask for, until none; gives their windows."""
    sensor = next(each for each in world.definitions.sensors or () if each.name == "changed_windows")
    assert isinstance(sensor, dg.SensorDefinition)
    refreshed: list[str] = []
    while True:
        result = sensor(dg.build_sensor_context(world.instance))
        assert isinstance(result, dg.SensorResult)
        if not result.run_requests:
            return refreshed
        [request] = result.run_requests
        first, last = window_range(request.tags) or (str(request.partition_key),) * 2
        for window in HOURLY.between(first, last):
            assert run_job(world, "refresh_window", window).success
            refreshed.append(window)


def run_job(world: World, name: str, window: str) -> dg.ExecuteInProcessResult:
    job = world.definitions.resolve_job_def(name)
    return job.execute_in_process(instance=world.instance, partition_key=window, run_config=QUIET, raise_on_error=False)


def materialize(world: World, window: str, *assets: str) -> None:
    chosen = [dg.AssetKey(asset) for asset in assets]
    job = world.definitions.resolve_implicit_job_def_def_for_assets(chosen)
    assert job is not None
    assert job.execute_in_process(
        instance=world.instance, partition_key=window, asset_selection=chosen, run_config=QUIET
    ).success


def carried_of(world: World, window: str) -> list[Any]:
    with world.database.connect() as conn:
        return carried(load_dataset(conn, world.row(window).dataset_id or ""))


def known(world: World) -> list[late_samples.CarriedSamples]:
    with world.database.connect() as conn:
        return late_samples.carried(conn, CHAIN)


def test_a_late_trajectory_is_carried_into_the_next_window_once(world: World) -> None:
    name, before = late_trajectory(world), world.row(FIRST)
    assert refresh(world) == [FIRST]
    waits = world.row(FIRST)
    assert (waits.status, waits.checkpoint_id) == ("trained", before.checkpoint_id)
    assert waits.trainable_tokens > before.trainable_tokens  # those of its dataset, as all its counts
    assert "late samples wait for the next training; the chain stays as it is" in (waits.reason or "")
    assert stale(world, FIRST) == {}
    [(_, _, number, _)] = known(world)
    assert known(world) == [late_samples.CarriedSamples(FIRST, None, number)]
    assert (waits.reason or "") == world.metadata("training_datasets", FIRST)["reason"]
    assert f" {number} late samples" in (waits.reason or "")

    world.run(SECOND)
    taken = carried_of(world, SECOND)
    assert {sample.trajectory_id for sample in taken} == {name}
    assert {sample.window for sample in taken} == {FIRST}
    assert len(taken) == number > 1
    assert known(world) == [late_samples.CarriedSamples(FIRST, SECOND, number)]
    said = world.metadata("training_datasets", SECOND)
    assert (said["carried_samples"], said["carried_trajectories"], said["carried_from"]) == (number, 1, {FIRST: number})
    assert f"{number} late samples carried into {SECOND}" in (world.row(FIRST).reason or "")
    assert list(observed(world, FIRST).items()) == [("status", "trained"), ("reason", world.row(FIRST).reason)]
    assert "late sample" not in world.metadata("model_checkpoints", FIRST)["reason"]  # it stays as it was said then
    world.run(FIRST)
    again, now = world.metadata("model_checkpoints", FIRST), world.row(FIRST)
    assert now.dataset_id != before.dataset_id and now.reward_mean != before.reward_mean
    assert again["reward_mean"] == pytest.approx(before.reward_mean, rel=1e-3)  # that of the dataset beside it

    with world.database.connect() as conn:
        made = checkpoints.by_window(conn, CHAIN, SECOND)
        assert made is not None
        assert lineage.policies_that_saw(conn, trajectory=name)[f"{CHAIN}@2"] == "trained on it"
        assert lineage.trained_trajectories(conn, made)[name] == number
        assert lineage.windows_of(conn, made) == {FIRST: number}
    counted = sum(sample.tokens for sample in taken)
    assert world.row(SECOND).trainable_tokens == trained_alone(world, SECOND) + counted

    rows = {window: asdict(world.row(window)) | {"changed_at": None} for window in (FIRST, SECOND)}
    for window in (FIRST, SECOND, FIRST):
        materialize(world, window, "training_datasets")
    world.run(SECOND)
    assert {window: asdict(world.row(window)) | {"changed_at": None} for window in rows} == rows
    world.run(THIRD)
    assert carried_of(world, THIRD) == []
    assert "carried_from" not in world.metadata("training_datasets", THIRD)


def trained_alone(world: World, window: str) -> int:
    """Tokens of the window's own samples that are trained on."""
    with world.database.connect() as conn:
        samples = load_dataset(conn, world.row(window).dataset_id or "").samples
    return sum(each.tokens for each in samples if each.trains_as != "skip" and each.window == window)


def observed(world: World, window: str) -> dict[str, Any]:
    """The newest observation of a window's dataset."""
    records = dg.AssetRecordsFilter(dg.AssetKey("training_datasets"), asset_partitions=[window])
    event = world.instance.fetch_observations(records, limit=1).records[0].asset_observation
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


@pytest.mark.parametrize("forgets", [False, True])
def test_late_outcomes_are_carried_and_what_was_trained_is_not(world: World, forgets: bool) -> None:
    """Of the second window, whose markets resolve after it was trained; also where an agent was forgotten since."""
    world.execute('UPDATE public."Market" SET resolved = false, "updatedAt" = now() - interval \'1 day\'')
    world.execute('DELETE FROM public."market_outcomes"')
    world.run(SECOND)
    known_before = world.metadata("scored_trajectories", SECOND)
    assert known_before["pending"] > 0 < known_before["known"]
    trained = {sample.sample_id: sample for sample in of(world, SECOND) if sample.trains_as != "skip"}
    agent = min(sample.agent_id for sample in trained.values())
    if forgets:
        with world.database.connect() as conn:
            assert set(lineage.windows_with(conn, agent)) >= {SECOND}
            lineage.forget_agent(conn, agent)
        assert world.row(SECOND).reason == lineage.FORGOTTEN
        assert emptied(world)[SECOND] is False
    world.execute(
        'UPDATE public."Market" SET resolved = true, resolution = coalesce(resolution, true), "updatedAt" = now()'
    )
    assert SECOND in refresh(world)
    assert world.row(SECOND).status == "trained"
    world.run(THIRD)
    carried_there = [sample for sample in carried_of(world, THIRD) if sample.window == SECOND]
    taken = {sample.sample_id for sample in carried_there}
    assert taken
    assert taken.isdisjoint(trained)
    assert not forgets or agent not in {sample.agent_id for sample in carried_there}
    assert not forgets or emptied(world)[SECOND]


def emptied(world: World) -> dict[str, bool]:
    """The windows that the report lists as those of forgotten agents, and whether they were frozen again."""
    with world.database.connect() as conn:
        report = read_report(conn, CHAIN, "here", datetime.now(UTC), HOURLY)
    return {row.window: row.frozen_again for row in report.emptied}


def of(world: World, window: str) -> list[Any]:
    with world.database.connect() as conn:
        return load_dataset(conn, world.row(window).dataset_id or "").samples


def test_windows_that_are_frozen_at_once_do_not_take_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look at what they may take at the same moment, unless one waits for the other."""
    refresh(world)
    waiting = known(world)
    for window in (SECOND, THIRD):
        materialize(world, window, "raw_trajectories", "scored_trajectories")
    with monkeypatch.context() as patch:
        patch.setattr("babylon_assets.orchestration.freezing._window_columns", broken)
        with pytest.raises(ZeroDivisionError):
            freeze_window(Installation(world.settings, world.database), SECOND)
    assert known(world) == waiting
    with monkeypatch.context() as patch:
        patch.setattr("babylon_assets.ledger.late_samples.available", at_once(late_samples.available))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda w: freeze_window(Installation(world.settings, world.database), w), (SECOND, THIRD)))
    taken = {window: len(carried_of(world, window)) for window in (SECOND, THIRD)}
    [(_, taker, number, _)] = known(world)
    assert taken == {SECOND: 0, THIRD: 0} | {taker: number}
    other = THIRD if taker == SECOND else SECOND
    world.execute("UPDATE babylon_training.windows SET status = 'thin' WHERE window_id = %s", taker)
    freeze_window(Installation(world.settings, world.database), other)
    assert len(carried_of(world, other)) == number


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("killed here")


def at_once(look: Callable[..., Any]) -> Callable[..., Any]:
    """Looks once another thread looks as well, or does not come within a second."""
    both = threading.Barrier(2)

    def wait(*arguments: Any) -> Any:
        found = look(*arguments)
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)
        return found

    return wait


def shown(world: World) -> Any:
    """What is kept and shown of the first window, and whether anything of it is late."""
    assets = ("raw_trajectories", "scored_trajectories", "training_datasets", "model_checkpoints")
    with world.database.connect() as conn:
        scores = read_scores(conn, FIRST).to_csv(), revisions(conn, FIRST)
    return world.row(FIRST), scores, [world.metadata(asset, FIRST) for asset in assets], known(world)


def test_a_branch_of_other_rewards_leaves_its_window_to_the_chain(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before, other = shown(world), world.having(reward_weights={"format": 2.0})
    line = Line(other.definitions, world.instance)
    train_beside(world.database, line, other.settings, FIRST, "other", lambda _: None)
    assert shown(world) == before
    assert f"`babylon train {FIRST}` reads them" in " ".join(capsys.readouterr().out.split())
    with world.database.connect() as conn:
        [branch] = checkpoints.chain(conn, f"{CHAIN}+other")
        assert lineage.scorers(conn, branch) == ["format@1"]
        own = load_dataset(conn, branch.dataset_id or "").samples
    assert own and all(sample.components == {"format": (sample.reward or 0.0) / 2} for sample in own)
    assert branch.settings["reward_weights"] == {"format@1": 2.0}
    same = freeze_for_branch(Installation(world.settings, world.database), FIRST)
    assert same.id == world.row(FIRST).dataset_id


def test_late_data_is_left_alone_or_retrained_as_the_settings_say(world: World) -> None:
    ignoring, retraining = world.having(late_data="ignore"), world.having(late_data="retrain")
    assert refresh(ignoring) == [FIRST]
    assert known(world) == []
    assert (world.row(FIRST).reason or "").startswith("its data changed after training, on 20")

    assert run_job(retraining, "refresh_window", FIRST).success
    with world.database.connect() as conn:
        root, own = checkpoints.chain(conn, CHAIN)
        [branch] = checkpoints.chain(conn, f"{CHAIN}+{FIRST.removesuffix(':00')}")
        assert checkpoints.head(conn, CHAIN) == own
        assert late_trajectory(world) in lineage.trained_trajectories(conn, branch)
    assert (branch.parent_id, branch.dataset_id) == (root.id, world.row(FIRST).dataset_id)
    assert f"trained beside it as {CHAIN}+" in world.metadata("model_checkpoints", FIRST)["reason"]
    for settings in (ignoring, retraining):
        materialize(settings, SECOND, "raw_trajectories", "scored_trajectories", "training_datasets")
        assert known(world) == [] == carried_of(world, SECOND)
