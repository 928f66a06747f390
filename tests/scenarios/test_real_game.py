"""The line over a game's own database: other models' full rows, PostgreSQL over TCP with a password, SELECT only."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from babylon_assets.environments.babylon.game_tables import copy_rows, create_game_tables
from babylon_assets.ledger.addresses import Address
from tests.domain.rows import START, START_MS, WINDOW
from tests.environments.babylon.rows import add_trajectories, add_users, market, organization, quote, trade, trajectory
from tests.scenarios.conftest import Environment, babylon, babylon_here, start

PASSWORD = "l'arbre/ümlaut %3"
AGENTS, STEPS = 6, 5
LIVE_WINDOW = "2026-10-01T01:00"
RULES = "You are a trader in a prediction market. " + "Weigh what is told by whom before you act. " * 25


@pytest.fixture(scope="module")
def address(system_postgres: Address) -> Address:
    """The game's database under a role that may read the game and write nothing but our schema."""
    with psycopg.connect(system_postgres.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE real_game")
        conn.execute(sql.SQL("CREATE ROLE reader LOGIN PASSWORD {}").format(PASSWORD))
        conn.execute("CREATE DATABASE real_game_dagster OWNER reader")
    with psycopg.connect(system_postgres.at("real_game").conninfo()) as conn:
        create_game_tables(conn)
        write_full_rows(conn)
        write_live_rows(conn)
        conn.execute("CREATE SCHEMA babylon_training AUTHORIZATION reader")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    return Address({**system_postgres.at("real_game").parameters, "user": "reader", "password": PASSWORD})


@pytest.fixture
def environment(
    address: Address, tmp_path: Path, tiny_base: Path, environment_of: Callable[..., Environment]
) -> Environment:
    return environment_of(tmp_path, DATABASE_URL=address.url(), BASE_MODEL=str(tiny_base), GRADIENT_TOKENS="4096")


def write_full_rows(conn: psycopg.Connection[Any]) -> None:
    """Agents that see the same market at the same minutes; half of them buy what turns out right."""
    add_users(conn, *(f"a{agent}" for agent in range(AGENTS)))
    copy_rows(conn, "Organization", [organization("ACME")])
    resolved = {"resolved": True, "resolution": True, "updatedAt": START + timedelta(minutes=50)}
    copy_rows(conn, "Market", [market("m1", **resolved)])
    copy_rows(conn, "PredictionPriceHistory", [quote("q1", 0.4, -5)])
    for agent in range(AGENTS):
        side = "YES" if agent % 2 else "NO"
        steps = [full_step(number, side) for number in range(STEPS)]
        add_trajectories(conn, trajectory(f"full-{agent}", steps, agentId=f"a{agent}"))
        copy_rows(conn, "AgentTrade", [agent_trade(agent, number, side) for number in range(STEPS)])


def full_step(number: int, side: str) -> dict[str, Any]:
    call = {
        "model": "gpt-5-mini",
        "systemPrompt": RULES,
        "userPrompt": f"Minute {number}. Market m1: YES 40. A reliable source says yes.",
        "response": json.dumps({"action": f"buy_{side.lower()}", "market": "m1"}),
        "temperature": 0.7,
        "maxTokens": 64,
        "purpose": "action",
    }
    parameters = {"marketType": "prediction", "marketId": "m1", "side": side, "pnlChange": 5, "finalPnL": 12}
    return {
        "stepNumber": number,
        "timestamp": START_MS + 60_000 * number,
        "reward": 0.0,
        "environmentState": {"agentBalance": 1000.0, "agentPnL": 5.0, "openPositions": 0},
        "providerAccesses": [],
        "llmCalls": [call],
        "action": {"actionType": "BUY_PREDICTION_SHARES", "parameters": parameters, "success": True},
    }


def agent_trade(agent: int, number: int, side: str) -> dict[str, Any]:
    price = 0.4 if side == "YES" else 0.6
    at = START + timedelta(minutes=number, seconds=1)
    return trade(f"t{agent}-{number}", agentUserId=f"a{agent}", side=side.lower(), price=price, executedAt=at)


def write_live_rows(conn: psycopg.Connection[Any]) -> None:
    """The next hour: the game's own agents, whose prompts and answers are stored nowhere."""
    for agent in range(AGENTS):
        steps = [full_step(number, "YES") | {"llmCalls": []} for number in range(STEPS)]
        changes = {"agentId": f"a{agent}", "windowId": LIVE_WINDOW, "scenarioId": LIVE_WINDOW}
        add_trajectories(conn, trajectory(f"live-{agent}", steps, **changes))


@pytest.mark.slow
def test_a_real_games_window_is_trained_and_says_how(environment: Environment) -> None:
    assert "is at revision" in babylon_here(environment, "migrate")
    printed = babylon_here(environment, "train", WINDOW)
    assert f"{WINDOW}  trained" in printed
    assert "30 samples" in printed
    assert "15 sft, 15 skip: worse half of its group" in printed
    assert "sft on " in printed
    assert "@0 -> babylon-agent@1" in printed
    [full, live] = json.loads(babylon_here(environment, "windows", "--json"))
    assert (full["window"], full["state"], full["samples"], full["oracle"]) == (WINDOW, "trained", 30, None)
    assert full["trainable_tokens"] > 0
    assert (live["window"], live["state"]) == (LIVE_WINDOW, "open")
    skipped = babylon_here(environment, "train", LIVE_WINDOW)
    assert f"{LIVE_WINDOW}  skipped  nothing in the window can be trained on" in skipped
    lineage = json.loads(babylon_here(environment, "status", WINDOW, "--json"))["lineage"]
    assert (lineage["step"], lineage["settings"]["method"]) == (1, "sft")


@pytest.mark.slow
def test_the_password_is_nowhere(environment: Environment) -> None:
    babylon_here(environment, "migrate")
    told = [babylon(environment, *command.split()) for command in ("windows", "status", "doctor")]
    wrong = environment | {"DATABASE_URL": environment["DATABASE_URL"].replace("reader:", "reader:wrong")}
    with start(wrong, "windows") as refused:
        told.append(refused.communicate()[0])
    assert refused.returncode == 1
    home = Path(environment["BABYLON_HOME"])
    told += [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
    secrets = (PASSWORD, environment["DATABASE_URL"].split("@")[0].rpartition(":")[2])
    assert [secret for secret in secrets for text in told if secret in text] == []


@pytest.mark.slow
def test_the_demo_does_not_play_into_it(environment: Environment) -> None:
    with start(environment, "demo") as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "holds a game that is not simulated" in " ".join(printed.split())
