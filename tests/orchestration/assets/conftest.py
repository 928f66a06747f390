"""A small simulated game, and the line over it with an instance that lives in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import WindowRow, get_window
from babylon_assets.orchestration.assets.raw_trajectories import copy_window
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.metadata import METADATA
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Line, LineRun
from babylon_assets.orchestration.scoring import score_window
from babylon_assets.serving.engine.engine import Engine
from tests.domain.rows import WINDOW, call, step
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.servers import Server

#: Agents of `game`, each with one trajectory of one answer.
ROWS = 30
FIRST, SECOND, THIRD = HOURLY.closed(datetime.now(UTC), 3)


@dataclass
class World:
    """A database with a game in it, the definitions over it, and what its runs left."""

    settings: Settings
    database: Database
    instance: dg.DagsterInstance
    engine: Engine

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(self.settings, installation=Installation(self.settings, self.database))

    def having(self, **changes: Any) -> World:
        """The same world with other settings."""
        return replace(self, settings=self.settings.replace(**changes))

    def play(self, window: str) -> None:
        with self.database.connect() as conn:
            play_window(self.settings, conn, window, self.engine)

    def run(self, window: str) -> LineRun:
        done = Line(self.definitions, self.instance).materialize(window)
        assert metadata_names(self.instance, done.run_id) - set(METADATA) == set(), "declare them in metadata.py"
        return done

    def row(self, window: str) -> WindowRow:
        with self.database.connect() as conn:
            row = get_window(conn, window)
        assert row is not None
        return row

    def metadata(self, asset: str, window: str) -> dict[str, Any]:
        """The newest materialization's metadata, as plain values."""
        records = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[window])
        event = self.instance.fetch_materializations(records, limit=1).records[0].asset_materialization
        assert event is not None
        return {name: value.value for name, value in event.metadata.items()}

    def check(self, asset: str, name: str) -> dg.AssetCheckEvaluation:
        """The newest result of a check."""
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        [record] = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event is not None and record.event.dagster_event is not None
        return record.event.dagster_event.asset_check_evaluation_data

    def execute(self, statement: str, *parameters: Any) -> None:
        with self.database.connect() as conn:
            conn.execute(statement.encode(), parameters)


def metadata_names(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """The names of all metadata that a run's materializations and checks gave."""
    names: set[str] = set()
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_materialization:
            names.update(event.step_materialization_data.materialization.metadata)
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            names.update(event.asset_check_evaluation_data.metadata)
    return names


@pytest.fixture(scope="session")
def engine(taught_base: Path) -> Engine:
    return Engine(taught_base, "babylon-agent@0")


def small_game(home: Path, base: Path) -> Settings:
    """Settings of a game that is played and trained in a second."""
    return Settings(
        home=home,
        base_model=str(base),
        simulation_rooms=1,
        simulation_agents_per_room=6,
        simulation_ticks=8,
        min_samples_per_window=4,
        lora_rank=4,
        gradient_tokens=1024,
        evaluation_seeds=8,
    )


@pytest.fixture
def world(tmp_path: Path, taught_base: Path, engine: Engine, game_database: Database) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(small_game(tmp_path, taught_base), game_database, instance, engine)


@pytest.fixture(scope="session")
def shown(
    server: Server, played: str, taught_base: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world whose first window is trained, for tests that only look at it."""
    name = server.create(played)
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(
            small_game(tmp_path_factory.mktemp("shown"), taught_base), server.database(name), instance, engine
        )
        world.play(FIRST)
        world.run(FIRST)
        yield world
    server.drop(name)


@pytest.fixture(scope="session")
def three_played(server: Server, played: str, taught_base: Path, engine: Engine, tmp_path_factory: Any) -> str:
    """Name of a template in which the last three hours were played."""
    name = server.create(played)
    settings = small_game(tmp_path_factory.mktemp("played"), taught_base)
    with server.database(name).connect() as conn:
        for window in (FIRST, SECOND, THIRD):
            play_window(settings, conn, window, engine)
    return name


@pytest.fixture
def game(game_database: Database) -> Database:
    """A database with a window of thirty agents, each with one answer of another model."""
    with game_database.connect() as conn:
        add_users(conn, *(f"a{n}" for n in range(ROWS)))
        told = [step(llmCalls=[call(callId=None, model="gpt-4o")])]
        add_trajectories(conn, *(trajectory(f"t{n}", told, agentId=f"a{n}") for n in range(ROWS)))
    return game_database


def data_path(database: Database) -> str:
    """From the game's rows to the dataset of `WINDOW`; gives the dataset's id."""
    installation = Installation(Settings(), database)
    copy_window(installation, WINDOW)
    score_window(installation, WINDOW)
    return freeze_window(installation, WINDOW)[0].id
