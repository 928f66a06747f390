"""A window of Babylon with every kind of row, as it was in November 2025 and with some of the columns of 2026."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from babylon_assets.cli.list_scores import score_rows
from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.environments.feed.game import find_game
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import get_window
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories
from babylon_assets.orchestration.resources import Installation
from tests.domain.rows import START, WINDOW, step
from tests.environments.babylon.rows import (
    Connection,
    add_trajectories,
    add_users,
    market,
    organization,
    quote,
    stock_price,
    trade,
    trajectory,
)

SPRING = """
    ALTER TABLE public.trajectories ADD COLUMN archetype varchar(50) DEFAULT 'degen';
    CREATE TABLE public."UserAgentConfig" (id text PRIMARY KEY, "userId" text);
    CREATE TABLE public."OrganizationState" (id text PRIMARY KEY, "currentPrice" float8)"""
UNKNOWN: tuple[float | None, str] = (None, "unknown")
HELD: tuple[float | None, str] = (0.0, "no_trade")
ODDS = 0.25 / 0.75  # of YES; NO costs 3


def decision(market_type: str, name: str | None, side: str | None, *, traded: bool = True) -> dict[str, Any]:
    """What the live recorder writes: results, and what was traded without amount and price."""
    about = {"marketType": market_type, "ticker" if market_type == "perp" else "marketId": name, "side": side}
    parameters = {"method": "planning-coordinator", "pnlChange": 9.0, "finalPnL": 9.0, **(about if name else {})}
    return {"actionType": "TRADING_DECISION", "parameters": parameters, "success": traded}


def order(action_type: str, **parameters: Any) -> dict[str, Any]:
    return {"actionType": action_type, "parameters": parameters, "success": True}


#: The action, the game's own trade of it if there is one, and what is true of it.
CASES: list[tuple[dict[str, Any], dict[str, Any] | None, tuple[float | None, str]]] = [
    (decision("prediction", "yes", "YES"), {"marketId": "yes", "price": ODDS}, (1 - ODDS, "final")),
    (decision("prediction", "yes", "no"), {"marketId": "yes", "side": "no", "price": 3.0}, (-1.0, "final")),
    (decision("prediction", "no", "NO"), {"marketId": "no", "side": "no", "price": 3.0}, (-1.0, "final")),
    (decision("prediction", "yes", None), {"marketId": "yes", "price": ODDS}, (1 - ODDS, "final")),
    (decision("prediction", "open", "YES"), {"marketId": "open", "price": ODDS}, (None, "pending")),
    (decision("prediction", "cancelled", "YES"), {"marketId": "cancelled", "price": ODDS}, UNKNOWN),
    (decision("prediction", "gone", "NO"), {"marketId": "gone", "side": "no", "price": 0.6}, (0.4, "final")),
    (decision("prediction", "yes", "YES"), None, UNKNOWN),
    (decision("prediction", None, None, traded=False), None, HELD),
    (decision("perp", "Acme", "long"), {"side": "long", "price": 100.0}, (0.4, "final")),
    (decision("perp", "Acme", "short"), {"side": "short", "price": 100.0}, (-0.4, "final")),
    (order("SELL_SHARES", marketId="no", side="NO"), {"marketId": "no", "side": "no", "action": "close", "price": 3.0,
                                                       "pnl": 25 / 3.0 * 0.5}, (0.5, "final")),
    (order("buy_yes", marketId="yes", amount="25"), {"marketId": "yes", "price": ODDS}, (1 - ODDS, "final")),
    (order("hold"), None, HELD),
    (order("CREATE_POST", content="hi"), None, UNKNOWN),
    ({**order("BUY_SHARES", marketId="yes"), "success": False, "error": "poor"}, None, (None, "invalid")),
]  # fmt: skip


def play(conn: Connection) -> None:
    """Each case is a tick of an agent of its own."""
    copy_rows(conn, "Organization", [organization("ACME")])
    copy_rows(conn, "StockPrice", [stock_price("p0", 100.0, -5), stock_price("p1", 104.0, 61)])
    resolved = {"yes": True, "no": False, "cancelled": None}
    markets = [market(name, resolved=True, resolution=fate) for name, fate in resolved.items()]
    copy_rows(conn, "Market", [*markets, market("open")])
    copy_rows(conn, "PredictionPriceHistory", [quote(f"q-{name}", 0.25, -5, name) for name in (*resolved, "open")])
    note = {"id": "o", "windowId": "2026-10-01T05:00", "predictionMarketId": "gone", "outcome": "NO"}
    copy_rows(conn, "market_outcomes", [note])
    for number, (action, made, _) in enumerate(CASES):
        agent = f"a{number}"
        add_users(conn, agent)
        add_trajectories(conn, trajectory(agent, [step(0, action=action, llmCalls=[])], agentId=agent))
        if made is not None:
            ticker = {} if "marketId" in made else {"marketType": "perp", "marketId": None, "ticker": "Acme"}
            at = START + timedelta(seconds=9)
            copy_rows(conn, "AgentTrade", [trade(agent, agentUserId=agent, executedAt=at, **ticker, **made)])
    add_users(conn, "tester", isTest=True)
    add_trajectories(conn, trajectory("tester", agentId="tester"))


@pytest.fixture(params=["2025", "2026"])
def installation(request: pytest.FixtureRequest, game_database: Database) -> Installation:
    with game_database.connect() as conn:
        if request.param == "2026":
            conn.execute(SPRING)
        play(conn)
        game = find_game(conn)
    assert game is not None and game.name == "babylon"
    return Installation(Settings(environment="babylon", min_agents_per_window=1), game_database)


def test_every_worth_is_right_and_every_row_is_counted(installation: Installation) -> None:
    raw_trajectories.read(installation, WINDOW)
    scored_trajectories.score(installation, WINDOW)
    with installation.connect() as conn:
        shown = {
            row["trajectory"]: (row["worth"], row["state"]) for row in score_rows(installation.settings, conn, WINDOW)
        }
        row = get_window(conn, WINDOW)
    true = {f"a{number}": truth for number, (*_, truth) in enumerate(CASES)}
    assert {name: (worth and round(worth, 9), state) for name, (worth, state) in shown.items()} == {
        name: (worth and round(worth, 9), state) for name, (worth, state) in true.items()
    }
    assert row is not None and (row.trajectories, row.understood, row.unknown_words) == (len(CASES), 1.0, None)
    expected = {"actions": 16, "trades": 12, "linked": 11, "valued": 9, "pending": 1, "left out: test users": 1}
    assert expected.items() <= (row.understanding or {}).items()


def test_a_renamed_word_stops_it_with_its_name(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"perp"', '"swap"')""")
    raw_trajectories.read(installation, WINDOW)
    result = scored_trajectories.score(installation, WINDOW)
    [found] = [check for check in result.checks if check.check_name == checks.UNDERSTOOD]
    assert not found.passed and "marketType swap (2)" in str(found.description)
