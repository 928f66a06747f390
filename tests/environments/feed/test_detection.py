"""Which game a database holds: found from its tables and from the words in its newest rows."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.environments.feed.game import find_game
from babylon_assets.environments.registry import environment_of_pages, open_environment
from babylon_assets.ledger.database import Database
from tests.domain.rows import WINDOW
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.environments.feed.hour import play_hour
from tests.environments.feed.tables import create_feed_tables
from tests.servers import Server

Connection = psycopg.Connection[Any]


def test_feed_is_found(conn: Connection) -> None:
    assert find_game(conn) is None
    create_feed_tables(conn)
    assert find_game(conn) == ("feed", "5 of 5 new tables; 0 trades in Feed's words, 0 in Babylon's", False)
    play_hour().write(conn)
    found = find_game(conn)
    assert found is not None and (found.name, found.has_rows) == ("feed", True)


def test_babylon_is_found(game_conn: Connection) -> None:
    add_users(game_conn, "a1")
    add_trajectories(game_conn, trajectory("t1"))
    found = find_game(game_conn)
    assert found == ("babylon", "0 of 5 new tables; 0 trades in Feed's words, 2 in Babylon's", True)


def spring(conn: Connection) -> None:
    """A Babylon of spring 2026: most of the new tables and columns, and the old words."""
    create_game_tables(conn)
    for table in ("UserAgentConfig", "PerpMarketSnapshot", "ActorState", "OrganizationState"):
        columns = (
            "id text PRIMARY KEY"
            if table not in ("PerpMarketSnapshot", "UserAgentConfig")
            else {
                "PerpMarketSnapshot": 'ticker text PRIMARY KEY, "organizationId" text',
                "UserAgentConfig": 'id text PRIMARY KEY, "userId" text, team text',
            }[table]
        )
        conn.execute(f'CREATE TABLE public."{table}" ({columns})'.encode())
    conn.execute("ALTER TABLE public.trajectories ADD archetype varchar(50)")


def test_a_babylon_of_spring_is_read_with_what_it_has(conn: Connection) -> None:
    spring(conn)
    add_users(conn, "a1")
    metadata = json.dumps({"archetype": "degen", "gameKnowledge": {"trueProbabilities": {"m1": 1}}})
    add_trajectories(
        conn, trajectory("t1", metadataJson=metadata), trajectory("t2", archetype="liar", metadataJson="{")
    )
    conn.execute("""INSERT INTO public."UserAgentConfig" VALUES ('c1', 'a1', 'blue')""")
    found = find_game(conn)
    assert found is not None and found.name == "babylon"
    environment = BabylonEnvironment(Settings())
    environment.check(conn)
    rows = {row.trajectory_id: row.attributes for row in environment.read_window(conn, WINDOW)}  # type: ignore[union-attr]
    assert rows == {"t1": {"archetype": "degen", "team": "blue"}, "t2": {"archetype": "liar", "team": "blue"}}
    assert "without reward_judgments" not in environment.describe_record(conn)
    assert environment.fingerprint(conn, WINDOW, ["m1"])


@pytest.mark.parametrize(
    ("table", "loss"),
    [
        ("Position", "a right bet has no worth"),
        ("PerpPosition", "perpetuals are entered at the last price before the step"),
        ("UserAgentConfig", "the agents' teams are not known"),
        ("Organization", "tickers are found by positions and snapshots"),
        ("NPCTrade", "trades of the older engine's NPCs have no worth"),
    ],
)
def test_what_is_missing_is_named_with_what_it_costs(feed_database: Database, table: str, loss: str) -> None:
    with feed_database.connect() as conn:
        assert FeedEnvironment(Settings()).describe_record(conn) == ""
        _check_loss(conn, table, loss)


def _check_loss(conn: Connection, table: str, loss: str) -> None:
    conn.execute(f'DROP TABLE public."{table}"'.encode())
    fresh = FeedEnvironment(Settings())
    fresh.check(conn)
    assert f"without {table} {loss}" in fresh.describe_record(conn)
    window = "2026-07-15T10:00"
    rows = list(fresh.read_window(conn, window))
    from babylon_assets.domain.frames import steps_frame

    valued = fresh.value_steps(conn, window, steps_frame(rows, fresh.detail))  # type: ignore[arg-type]
    assert (valued["state"] == "final").any()
    assert fresh.fingerprint(conn, window, ["ACME", "41001"])


def test_auto_opens_what_the_database_holds(server: Server, migrated: str) -> None:
    name = server.create(migrated)
    try:
        database: Database = server.database(name)
        settings = Settings(database_url=server.address.at(name).url())
        assert isinstance(open_environment(settings), BabylonEnvironment)
        with database.connect() as conn:
            create_feed_tables(conn)
            play_hour().write(conn)
        assert isinstance(open_environment(settings), FeedEnvironment)
        assert isinstance(open_environment(settings.model_copy()), FeedEnvironment)
        set_so = Settings(database_url=server.address.at(name).url(), environment="babylon")
        assert type(open_environment(set_so)) is BabylonEnvironment
        assert environment_of_pages(settings).tables == BabylonEnvironment.tables
    finally:
        server.drop(name)
