"""Our tables in a database of their own: the game's is only read, be it a primary or a hot standby of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.cli.doctor import diagnose
from babylon_assets.cli.simulated_game import create_tables
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError, SettingsError
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.addresses import Address
from babylon_assets.ledger.database import Database, migrate, open_database
from babylon_assets.orchestration import training_requests
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.window_queue import Attempts, changed_windows, next_windows
from babylon_assets.serving.engine.engine import Engine
from tests.gateways import wait_for
from tests.orchestration.assets.conftest import FIRST, SECOND, World, small_game
from tests.servers import Server, standby_server

CALLS = "babylon_training.inference_calls"
NOW = datetime(2026, 11, 5, tzinfo=UTC)


@dataclass
class Game:
    """The game on a server of its own, in a database without a schema of ours, and the calls that were recorded."""

    database: Database
    calls: bytes


@pytest.fixture(scope="module")
def game(
    system_postgres: Address, taught_base: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Game]:
    server = Server(system_postgres)
    name = server.create()
    database = server.database(name)
    migrate(database)
    settings = small_game(tmp_path_factory.mktemp("game"), taught_base)
    with database.connect() as conn:
        create_game_tables(conn)
        for window in (FIRST, SECOND):
            play_window(settings, conn, window, engine)
        with conn.cursor().copy(f"COPY {CALLS} TO STDOUT".encode()) as copy:
            calls = b"".join(bytes(block) for block in copy)
        conn.execute("DROP SCHEMA babylon_training CASCADE")
    yield Game(database, calls)
    server.drop(name)


@pytest.fixture(scope="module")
def standby(system_postgres: Address, game: Game) -> Iterator[Server]:
    with standby_server(system_postgres) as address:
        yield Server(address)


@pytest.fixture
def over(game: Game, database: Database, tmp_path: Path, taught_base: Path) -> Iterator[Any]:
    """A world over a game's database, with our tables and the calls that the gateway recorded in another one."""
    with database.connect() as conn, conn.cursor().copy(f"COPY {CALLS} FROM STDIN".encode()) as copy:
        copy.write(game.calls)
    with dg.DagsterInstance.ephemeral() as instance:

        def build(source_url: str, **changes: Any) -> World:
            urls = {"database_url": source_url, "ledger_database_url": database.url, "window_start": FIRST}
            settings = small_game(tmp_path, taught_base).replace(**urls, **changes)
            return World(settings, open_database(settings), instance, None)  # type: ignore[arg-type]  # no more is played

        yield build


def on_standby(game: Game, standby: Server) -> str:
    """The URL of the game's database on the standby, once that has all of what the primary has."""
    with game.database.connect() as conn:
        row = conn.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
    url = standby.address.at(game.database.place.rpartition("/")[2]).url()
    database = open_database(Settings(database_url=url))

    def caught_up() -> bool:
        with database.connect() as conn:
            found = conn.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone()
        return found is not None and bool(found[0])

    wait_for(caught_up)
    return url


def test_a_window_of_a_hot_standby_is_trained_and_promoted(
    over: Any, game: Game, standby: Server, caplog: pytest.LogCaptureFixture
) -> None:
    world: World = over(on_standby(game, standby), write_trained_models=True, gate=False)
    assert world.database.is_apart and world.database.source_place in repr(world.database)
    assert next_windows(
        Installation(world.settings, world.database), datetime.now(UTC), None, lambda *_: Attempts(0, None)
    ).windows
    with caplog.at_level(logging.WARNING):
        world.run(FIRST)
    assert world.row(FIRST).status == "trained"
    assert f"the game is not told, because {world.database.source_place} only reads" in caplog.text
    assert "trained_models" not in world.metadata("promoted_model", FIRST)
    plan = changed_windows(Installation(world.settings, world.database), None, 9, lambda *_: False)
    assert (plan.windows, plan.unchanged, plan.cursor) == ([], [], None)


def test_what_a_standby_cannot_take_is_said_before(over: Any, game: Game, standby: Server, tmp_path: Path) -> None:
    url = on_standby(game, standby)
    world: World = over(url, write_trained_models=True, train_requests=True)
    found = {one.name + one.remedy: one for one in diagnose(world.settings)}
    assert found["source"].found.endswith(f"{world.database.source_place}, which only reads")
    for name in ("TRAIN_REQUESTS", "WRITE_TRAINED_MODELS"):
        assert (
            f"rights{name} is true and the database only reads; set {name}=false, or DATABASE_URL to the primary"
            in found
        )
    assert [name for name in found if name.startswith(("standby", "database", "our tables", "the environment's"))] == [
        "database",
        "our tables",
        "the environment's tables",
    ]
    with pytest.raises(SettingsError, match=r"TRAIN_REQUESTS is true, and no request can be claimed: .* only reads"):
        training_requests.settle(Installation(world.settings, world.database), world.instance, NOW)
    alone = {one.name: one for one in diagnose(Settings(home=tmp_path, database_url=url))}
    assert "LEDGER_DATABASE_URL" in alone["standby"].remedy
    with pytest.raises(PermanentError, match="unset LEDGER_DATABASE_URL to play it"):
        create_tables(world.database)


def test_a_game_that_may_be_written_is_told_and_holds_nothing_of_ours(over: Any, game: Game, tmp_path: Path) -> None:
    world: World = over(game.database.url, write_trained_models=True, train_requests=True, gate=False)
    installation = Installation(world.settings, world.database)
    with game.database.connect() as conn:
        conn.execute(
            """INSERT INTO public.training_batches
               ("id", "batchId", "scenarioId", "baseModel", "modelVersion", "trajectoryIds", "rewardsJson")
               VALUES ('r1', 'r1', %s, 'm', 'v', '[]', '[]')""",
            [FIRST],
        )
    launch = training_requests.next_launch(installation, world.instance, [], datetime.now(UTC))
    assert launch is not None and launch.window == FIRST
    world.run(FIRST)
    training_requests._tell(installation, launch.request)
    with game.database.connect() as conn:
        told = conn.execute('SELECT "status", "modelVersion" FROM public.training_batches').fetchall()
        named = conn.execute('SELECT "storagePath", "status" FROM public.trained_models').fetchall()
        marked = conn.execute('SELECT count(*) FROM public.trajectories WHERE "usedInTraining"').fetchone()
        ours = conn.execute("SELECT to_regnamespace('babylon_training')").fetchone()
    assert (told, named) == ([("completed", "babylon-agent@1")], [("babylon-agent@1", "deployed")])
    assert marked is not None and marked[0] > 0
    assert ours == (None,)


def test_every_command_finds_either_database(over: Any, game: Game, tmp_path: Path) -> None:
    world: World = over(game.database.url, gate=False)
    world.run(FIRST)
    environment = {
        "BABYLON_HOME": str(tmp_path),
        "DATABASE_URL": world.settings.database.url or "",
        "LEDGER_DATABASE_URL": world.settings.database.ledger_url or "",
        "COLUMNS": "200",
    }

    def babylon(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    rows = {row["window"]: row["state"] for row in json.loads(babylon("windows", "--json"))}
    assert rows == {FIRST: "trained", SECOND: "open"}
    assert json.loads(babylon("scores", FIRST, "--json"))
    babylon("report", "--output", str(tmp_path / "report.html"))
    assert f"{world.database.place}: schema babylon_training" in babylon("migrate")


def test_a_ledger_without_a_game_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set DATABASE_URL to the database of the game"):
        open_database(Settings(home=tmp_path, ledger_database_url="postgresql://u@h/d"))
