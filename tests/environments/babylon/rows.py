"""A small game in its own tables: rows with every column that has no default, and what a window of it holds."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import psycopg

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.environments.babylon import game_record
from babylon_assets.environments.babylon.game_tables import copy_rows
from tests.domain.rows import START, WINDOW, step

Connection = psycopg.Connection[Any]


def add_users(conn: Connection, *users: str, **flags: Any) -> None:
    copy_rows(
        conn, "User", [{"id": user, "username": user, "isAgent": True, "updatedAt": START, **flags} for user in users]
    )


def trajectory(trajectory_id: str, steps: Any = None, **changes: Any) -> dict[str, Any]:
    """A row of agent `a1` in the window; steps are text, or what becomes JSON."""
    text = steps if isinstance(steps, str) else json.dumps([step()] if steps is None else steps)
    return {
        "id": f"row-{trajectory_id}",
        "trajectoryId": trajectory_id,
        "agentId": "a1",
        "startTime": START,
        "endTime": START + timedelta(minutes=10),
        "durationMs": 600_000,
        "windowId": WINDOW,
        "scenarioId": WINDOW,
        "stepsJson": text,
        "rewardComponentsJson": "{}",
        "metricsJson": "{}",
        "metadataJson": "{}",
        "totalReward": 0.0,
        "episodeLength": 1,
        "finalStatus": "completed",
        "finalBalance": 1000.0,
        "finalPnL": 7.0,
        "updatedAt": START,
    } | changes


def add_trajectories(conn: Connection, *rows: dict[str, Any]) -> None:
    copy_rows(conn, "trajectories", rows)


def trade(trade_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": trade_id,
        "agentUserId": "a1",
        "marketType": "prediction",
        "marketId": "m1",
        "action": "buy",
        "side": "yes",
        "amount": 25.0,
        "price": 0.4,
        "executedAt": START,
    } | changes


def market(market_id: str, **changes: Any) -> dict[str, Any]:
    times = {"endDate": START + timedelta(days=1), "updatedAt": START}
    return {"id": market_id, "question": "?", "liquidity": 1000, **times} | changes


def organization(organization_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": organization_id,
        "name": organization_id.title(),
        "description": "",
        "type": "company",
        "updatedAt": START,
    } | changes


def stock_price(price_id: str, price: float, minutes: float, organization_id: str = "ACME") -> dict[str, Any]:
    return {
        "id": price_id,
        "organizationId": organization_id,
        "price": price,
        "change": 0.0,
        "changePercent": 0.0,
        "timestamp": START + timedelta(minutes=minutes),
    }


def quote(quote_id: str, yes_price: float, minutes: float, market_id: str = "m1") -> dict[str, Any]:
    shares = {"yesShares": 1, "noShares": 1, "liquidity": 1, "eventType": "trade", "source": "user_trade"}
    return {
        "id": quote_id,
        "marketId": market_id,
        "yesPrice": yes_price,
        "noPrice": round(1 - yes_price, 4),
        "createdAt": START + timedelta(minutes=minutes),
        **shares,
    }


def read(conn: Connection, window: str = WINDOW, **options: Any) -> dict[str, TrajectoryRecord | Quarantined]:
    """What a window holds, by trajectory id; each row once."""
    rows = list(game_record.read_window(conn, window, **options))
    assert len({row.trajectory_id for row in rows}) == len(rows)
    return {row.trajectory_id: row for row in rows}
