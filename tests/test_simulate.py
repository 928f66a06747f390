"""The simulated game beside the loop: each hour once and at its time, whoever is killed, and never in a real game."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from typer.testing import CliRunner

from babylon_assets.cli import simulate
from babylon_assets.cli.app import app
from babylon_assets.cli.simulate import Game, gateway_url, refuse_open_key, starting_back
from babylon_assets.cli.simulated_game import play_once, serving_the_game
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError, TransientError
from babylon_assets.environments.simulated import game_state
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.orchestration.up_lock import only_game, refuse_second_game
from babylon_assets.serving.client import GatewayPolicy
from tests.gateways import Chain, RunningGateway
from tests.orchestration.assets.conftest import small_game
from tests.scenarios.conftest import free_port

NOW = datetime(2026, 11, 5, 17, 30, tzinfo=UTC)
HOURS = ["2026-11-05T14:00", "2026-11-05T15:00", "2026-11-05T16:00"]
RUNNING = "2026-11-05T17:00"


@pytest.fixture
def database(game_database: Database) -> Database:
    """The gateway and the game share one."""
    return game_database


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return small_game(tmp_path, tiny_base)


@pytest.fixture
def players(gateway_with: Callable[..., RunningGateway]) -> Iterator[GatewayPolicy]:
    with GatewayPolicy(gateway_with().url, "babylon-agent") as players:
        yield players


@pytest.fixture
def game(settings: Settings, database: Database, players: GatewayPolicy) -> Callable[[], Game]:
    """The game as a process that was just started plays it."""
    return lambda: Game(settings, database, players, len(HOURS))


def played(database: Database) -> dict[str, int]:
    """Trajectories by window."""
    with database.connect() as conn:
        query = 'SELECT "windowId", count(*) FROM public."trajectories" GROUP BY 1 ORDER BY 1'
        return dict(conn.execute(query).fetchall())


def chain_head(database: Database) -> str:
    with database.connect() as conn:
        return checkpoints.chain(conn, "babylon-agent")[-1].id


def through(database: Database, window: str, **columns: Any) -> None:
    with database.connect() as conn:
        upsert_window(conn, window, **{"status": "thin", **columns})


def test_hours_that_are_over_wait_for_the_line_and_a_restart_goes_on(
    game: Callable[[], Game], database: Database
) -> None:
    begun = game()
    assert begun.step(NOW) == 0.0
    assert [begun.step(NOW), game().step(NOW)] == [simulate.LOOK_SECONDS] * 2
    assert played(database) == {HOURS[0]: 6}
    for status in ("open", "ready"):
        through(database, HOURS[0], status=status)
        assert begun.step(NOW) == simulate.LOOK_SECONDS
    through(database, HOURS[0])
    assert game().step(NOW) == 0.0
    through(database, HOURS[1], status="failed")
    assert begun.step(NOW) == 0.0
    assert played(database) == dict.fromkeys(HOURS, 6)


def test_the_running_hour_is_played_before_its_end_whatever_the_line_does(
    game: Callable[[], Game],
    database: Database,
    players: GatewayPolicy,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with database.connect() as conn:
        play_once(settings, conn, players, HOURS[-1])
    waiting = game()
    assert [waiting.step(NOW), waiting.step(NOW)] == [60.0] * 2
    assert capsys.readouterr().out == f"next: {RUNNING} at 17:58 UTC, just before it ends\n"  # once, not at each look
    assert game().step(NOW + timedelta(minutes=27, seconds=30)) == 30.0
    assert played(database) == {HOURS[-1]: 6}
    assert game().step(NOW + timedelta(minutes=28)) == 0.0
    assert played(database) == {HOURS[-1]: 6, RUNNING: 6}


def test_a_line_that_does_not_go_on_is_not_waited_for_for_ever(
    game: Callable[[], Game], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = game()
    stuck.step(NOW)
    assert stuck.step(NOW) == simulate.LOOK_SECONDS
    monkeypatch.setattr(simulate, "WAIT_SECONDS", 0.0)
    assert stuck.step(NOW) == 0.0
    assert list(played(database)) == HOURS[:2]


def test_without_automation_nothing_is_waited_for(
    settings: Settings, database: Database, players: GatewayPolicy
) -> None:
    alone = Game(settings.replace(automation=False), database, players, len(HOURS))
    assert [alone.step(NOW) for _ in HOURS] == [0.0] * 3
    assert list(played(database)) == HOURS


def test_the_promoted_policy_plays_once_it_is_judged(
    game: Callable[[], Game], database: Database, chain: Chain
) -> None:
    begun = game()
    begun.step(NOW)
    chain.add(1)
    through(database, HOURS[0], status="trained")
    with database.connect() as conn:
        conn.execute("UPDATE babylon_training.model_checkpoints SET window_id = %s WHERE step = 1", [HOURS[0]])
    assert begun.step(NOW) == simulate.LOOK_SECONDS  # trained, and nobody has judged it
    chain.promote(1)
    through(database, HOURS[0], status="ready", checkpoint_id=chain_head(database))  # an outcome came in since
    assert begun.step(NOW) == 0.0
    with database.connect() as conn:
        [(policy,)] = conn.execute(
            "SELECT DISTINCT policy FROM babylon_training.inference_calls WHERE created_at >= %s", [HOURS[1] + "Z"]
        ).fetchall()
    assert policy == "babylon-agent@1"


def test_two_players_play_an_hour_once(settings: Settings, database: Database, players: GatewayPolicy) -> None:
    """The second waits for the first, and then finds the hour played."""
    found: list[Any] = []

    def second() -> None:
        with GatewayPolicy("http://127.0.0.1:1/v1", "nobody asks it") as others, database.connect() as conn:
            found.append(play_once(settings, conn, others, HOURS[0]))

    waiting = threading.Thread(target=second)
    with database.connect() as conn:
        original = players.ask

        def ask(*arguments: Any, **named: Any) -> Any:
            if not waiting.is_alive():
                waiting.start()
            return original(*arguments, **named)

        players.ask = ask  # type: ignore[method-assign]
        assert play_once(settings, conn, players, HOURS[0]) is not None
    waiting.join(30)
    assert found == [None]
    assert played(database) == {HOURS[0]: 6}


def test_a_gateway_that_is_gone_leaves_no_half_of_an_hour(settings: Settings, database: Database) -> None:
    refused = pytest.raises(TransientError, match="does not answer")
    with GatewayPolicy("http://127.0.0.1:1/v1", "babylon-agent") as nobody, refused:
        Game(settings, database, nobody, 3).step(NOW)
    assert played(database) == {}
    with database.connect() as conn:
        assert game_state.balances(conn, [f"{9 * 10**15:018d}"]) == {}


def test_the_first_hour_is_a_partition(settings: Settings, database: Database, players: GatewayPolicy) -> None:
    late = settings.replace(window_start="2026-11-05T20:00")
    assert starting_back(late, database, 3).window_start <= late.window_start
    with database.connect() as conn:
        play_once(settings, conn, players, HOURS[0])
    assert starting_back(late, database, 3).window_start == HOURS[0]


def test_all_players_of_a_moment_find_a_place(settings: Settings) -> None:
    many = settings.replace(simulation_rooms=40, gateway_record=False)
    served = serving_the_game(many)
    assert (served.gateway.queue, served.gateway.key_concurrency, served.gateway.record) == (256, 240, True)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1"),
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("::", "http://[::1]:8000/v1"),
        ("localhost", "http://localhost:8000/v1"),
    ],
)
def test_the_gateway_is_reached_where_it_listens(host: str, url: str) -> None:
    assert gateway_url(Settings(gateway_host=host)) == url


@pytest.mark.parametrize("typed", [["up", "--simulate"], ["simulate"]])
def test_a_real_game_is_never_played_into(typed: list[str], database: Database, tmp_path: Path) -> None:
    with database.connect() as conn:
        conn.execute(
            """INSERT INTO public."User" (id, "displayName", "updatedAt") VALUES ('real', 'A person', now())"""
        )
    ports = {"DAGSTER_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    done = CliRunner().invoke(app, typed, env={"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path), **ports})
    assert done.exit_code == 1
    assert "holds a game that is not simulated" in " ".join(done.stderr.split())
    assert played(database) == {}


@pytest.mark.parametrize("typed", [["up", "--simulate"], ["simulate"], ["demo"]])
def test_the_record_of_another_environment_is_never_played_into(
    typed: list[str], database: Database, tmp_path: Path
) -> None:
    ports = {"DAGSTER_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    env = {"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path), "ENVIRONMENT": "files", **ports}
    done = CliRunner().invoke(app, typed, env=env)
    assert done.exit_code == 1
    assert "ENVIRONMENT is files, and the simulated market would be written" in " ".join(done.stderr.split())
    assert played(database) == {}


def test_one_process_at_a_time_plays_the_game_of_a_home(database: Database, tmp_path: Path) -> None:
    ports = {"DAGSTER_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    env = {"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path), **ports}
    with only_game(tmp_path):
        for typed in (["simulate"], ["up", "--simulate"]):
            done = CliRunner().invoke(app, typed, env=env)
            assert done.exit_code == 1
            assert f"is already played by process {os.getpid()}; stop that one" in " ".join(done.stderr.split())
    refuse_second_game(tmp_path)


def test_what_the_gateway_says_is_shown_without_its_form() -> None:
    said = {"message": "the gateway is starting", "type": "server_error"}
    reply = httpx.Response(503, request=httpx.Request("POST", "http://127.0.0.1:1/v1"))
    error = openai.InternalServerError(f"Error code: 503 - {said}", response=reply, body=said)

    async def refuse(*_: object) -> None:
        raise error

    with GatewayPolicy("http://127.0.0.1:1/v1", "babylon-agent") as players:
        players._all = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(TransientError) as refused:
            players.ask([], [], [], max_tokens=1)
    assert str(refused.value) == "the gateway at http://127.0.0.1:1/v1/ does not answer: the gateway is starting"


def test_the_players_key_stays_on_this_machine() -> None:
    for host in ("127.0.0.1", "::1", "0.0.0.0", "localhost"):
        refuse_open_key(Settings(gateway_host=host, simulation_key="hunter2"))
    elsewhere = Settings(gateway_host="192.0.2.7", simulation_key="hunter2")  # an address of nobody's (RFC 5737)
    with pytest.raises(SettingsError, match="SIMULATION_KEY would be sent there") as refused:
        refuse_open_key(elsewhere)
    assert "hunter2" not in str(refused.value)
    refuse_open_key(elsewhere.replace(keys_over_http=True))
    refuse_open_key(Settings(gateway_host="192.0.2.7"))
