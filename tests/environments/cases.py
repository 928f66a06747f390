"""What the contract of environments is tried on: for each one a small record of an hour, and what may happen to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.babylon.game_tables import copy_rows, create_game_tables
from babylon_assets.environments.base import Environment
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.environments.simulated.environment import SimulatedEnvironment
from babylon_assets.environments.simulated.players import play_window
from tests.domain.rows import START, WINDOW, step
from tests.environments.babylon.rows import add_trajectories, add_users, market, trajectory
from tests.environments.feed.game import Feed, order
from tests.environments.feed.game import Step as FeedStep
from tests.environments.feed.game import call as feed_call
from tests.environments.feed.tables import create_feed_tables
from tests.environments.support_desk import SCHEMA, SupportDesk
from tests.evaluation.players import Scripted

Write = Callable[[Connection[Any]], None]


@dataclass(frozen=True)
class Case:
    """An environment and its record.

    Attributes:
        create: makes its tables, empty; `fill` writes an hour of at least three trajectories, one of them invalid.
        table: one of the tables that are read.
        change, corrupt: change one row, make one unreadable.
        settle: an outcome becomes known that was not.
        revise: an outcome that is known turns out to be another one.
        settings: of the installation, besides the defaults.
    """

    make: Callable[[Settings], Environment]
    table: str
    create: Write
    fill: Write
    change: Write
    corrupt: Write
    settle: Write
    revise: Write
    window: str = WINDOW
    settings: dict[str, Any] = field(default_factory=dict)


def execute(statement: str, *parameters: Any) -> Write:
    def write(conn: Connection[Any]) -> None:
        assert conn.execute(statement.encode(), parameters).rowcount == 1

    return write


# -- Babylon -----------------------------------------------------------------------------------------------------------

_ONE_ROW = """WHERE "trajectoryId" = (SELECT min("trajectoryId") FROM public.trajectories)"""
CHANGE = execute(
    f"""UPDATE public.trajectories SET "agentId" = (SELECT max("agentId") FROM public.trajectories), "updatedAt" = now()
    {_ONE_ROW}"""
)
CORRUPT = execute(f"""UPDATE public.trajectories SET "stepsJson" = '[{{', "updatedAt" = now() {_ONE_ROW}""")


def _fill_game(conn: Connection[Any]) -> None:
    refused = step(action={"actionType": "INVALID_ACTION", "parameters": {}, "success": False, "error": "no order"})
    waits = step(action={"actionType": "HOLD", "parameters": {}, "success": True})
    steps = {"t1": [step(0), step(1)], "t2": [waits], "t3": [refused]}
    add_users(conn, *(f"a-{name}" for name in steps))
    add_trajectories(conn, *(trajectory(name, own, agentId=f"a-{name}") for name, own in steps.items()))
    trades = [{"id": f"x{n}", "agentUserId": "a-t1", "marketType": "prediction", "marketId": "m1"} for n in range(2)]
    details = {"action": "buy", "side": "yes", "amount": 25.0, "price": 0.4}
    times = [START + timedelta(minutes=n) for n in range(2)]
    copy_rows(conn, "AgentTrade", [{**row, **details, "executedAt": at} for row, at in zip(trades, times, strict=True)])
    copy_rows(conn, "Market", [market("m1")])


BABYLON = Case(
    make=BabylonEnvironment,
    table="public.trajectories",
    create=create_game_tables,
    fill=_fill_game,
    change=CHANGE,
    corrupt=CORRUPT,
    settle=execute(
        """UPDATE public."Market" SET resolved = true, resolution = true, "updatedAt" = now() WHERE id = 'm1'"""
    ),
    revise=execute("""UPDATE public."Market" SET resolution = false WHERE id = 'm1'"""),
)


# -- Feed --------------------------------------------------------------------------------------------------------------

_FEED_START = datetime(2026, 7, 15, 10, 0, tzinfo=UTC)


def _fill_feed(conn: Connection[Any]) -> None:
    """Two bets against each other, an agent whose answer was refused, and an NPC that posts."""
    feed, time = Feed(_FEED_START), _FEED_START + timedelta(minutes=5)
    for agent in ("31001", "31002"):
        feed.user(agent)
    feed.market("41001")
    for agent, side in (("31001", "yes"), ("31002", "no")):
        feed.buy(agent, "41001", side, 40.0, time + timedelta(seconds=1))
        bet = order(f"buy_{side}", side.upper(), "41001")
        feed.tick(agent, [FeedStep(time, bet, (None, "pending"), [feed_call("{}")])])
    refused = order("buy_yes", "YES", "41001", success=False, error="closed", result={})
    feed.tick("31001", [FeedStep(time + timedelta(minutes=3), refused, (None, "invalid"), [feed_call("{}")])])
    post = {"actionType": "POST", "success": True, "parameters": {}, "result": {"success": True}}
    feed.tick("mira-vale", [FeedStep(time, post, (None, "unknown"), [feed_call("{}")])])
    feed.leave_open("41001")
    feed.write(conn)


FEED = Case(
    make=FeedEnvironment,
    table="public.trajectories",
    create=create_feed_tables,
    fill=_fill_feed,
    change=CHANGE,
    corrupt=CORRUPT,
    settle=execute(
        """UPDATE public."Market" SET resolved = true, resolution = true, "updatedAt" = now() WHERE id = '41001'"""
    ),
    revise=execute("""UPDATE public."Market" SET resolution = false WHERE id = '41001'"""),
    window="2026-07-15T10:00",
)


# -- the simulated market ----------------------------------------------------------------------------------------------

_SMALL = {"simulation_rooms": 1, "simulation_agents_per_room": 4, "simulation_ticks": 24}


def _play(conn: Connection[Any]) -> None:
    """Bets on the first market of every board, some of which are open when the hour ends."""
    bet = '{"action":"buy_yes","target":"A"}'
    policy = Scripted(lambda _, seed: "no order" if seed % 4 == 0 else bet)
    policy.name = "babylon-agent@0"
    play_window(Settings(**_SMALL), conn, WINDOW, policy)


def _resolve(conn: Connection[Any]) -> None:
    """A market that somebody bet on and that was open."""
    found = conn.execute(
        """UPDATE public."Market" SET resolved = true, resolution = true, "updatedAt" = now()
        WHERE NOT resolved AND id IN (SELECT "marketId" FROM public."AgentTrade") RETURNING id"""
    ).fetchall()
    assert found


SIMULATED = Case(
    make=SimulatedEnvironment,
    table="public.trajectories",
    create=create_game_tables,
    fill=_play,
    change=CHANGE,
    corrupt=CORRUPT,
    settle=_resolve,
    revise=execute(
        """UPDATE public."Market" SET resolution = NOT resolution
        WHERE id = (
            SELECT min("marketId") FROM public."AgentTrade" JOIN public."Market" m ON m.id = "marketId" WHERE m.resolved
        )"""
    ),
    settings=_SMALL,
)


# -- the support desk --------------------------------------------------------------------------------------------------


def _fill_desk(conn: Connection[Any]) -> None:
    conn.execute("INSERT INTO desk.tickets VALUES ('t1', %s, 'Where is my kettle?')", [START])
    seen = Jsonb([{"role": "user", "content": "Where is my kettle?"}])
    said = {"amira": "[refund] Dear customer", "bela": "[explain] Dear customer", "chidi": "Dear customer"}
    for agent, text in said.items():
        reply = (f"t1/{agent}", "t1", agent, START + timedelta(minutes=5), "babylon-agent@0", None, seen, text)
        conn.execute("INSERT INTO desk.replies VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", reply)
    for agent in ("bela", "chidi"):
        conn.execute("INSERT INTO desk.ratings VALUES (%s, 2, %s)", [f"t1/{agent}", START + timedelta(hours=2)])


def _create_desk(conn: Connection[Any]) -> None:
    conn.execute(SCHEMA.encode())


DESK = Case(
    make=SupportDesk,
    table="desk.ratings",
    create=_create_desk,
    fill=_fill_desk,
    change=execute("UPDATE desk.replies SET answer = answer || '.' WHERE id = 't1/amira'"),
    corrupt=execute("UPDATE desk.replies SET prompt = '{}' WHERE id = 't1/amira'"),
    settle=execute("INSERT INTO desk.ratings VALUES ('t1/amira', 5, now())"),
    revise=execute("UPDATE desk.ratings SET stars = 1 WHERE reply_id = 't1/amira'"),
)

CASES = {"babylon": BABYLON, "feed": FEED, "simulated": SIMULATED, "support_desk": DESK}
