"""Windows of the game as the bench writes them: full rows of another model, about 25 KB each, drawn by the window's id.

An agent's system prompt is the same in all its calls and what the market shows it differs in each, as in the game. The
way they are read is none of this module's business.
"""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_tables import copy_rows

TRAJECTORIES, STEPS, AGENTS, MARKETS = 2000, 12, 200, 20
_WORDS = [f"w{n:05d}" for n in range(5000)]
_KINDS = ("BUY_SHARES", "BUY_SHARES", "HOLD", "INVALID_ACTION")


def following(window: str, count: int) -> list[str]:
    """A window and those after it, `count` in all."""
    windows = [window]
    while len(windows) < count:
        windows.append(HOURLY.next(windows[-1]))
    return windows


def write_window(conn: Connection[Any], window: str, trajectories: int = TRAJECTORIES, steps: int = STEPS) -> None:
    """Write a window's trajectories, the trades in them, and markets that are resolved by its end."""
    rng, start = random.Random(window), HOURLY.bounds(window)[0]
    agents = [f"agent-{n}" for n in range(AGENTS)]
    there = {row[0] for row in conn.execute('SELECT id FROM public."User"').fetchall()}
    users = [{"id": a, "username": a, "isAgent": True, "updatedAt": start} for a in agents if a not in there]
    copy_rows(conn, "User", users)
    markets = [f"{window}-m{n}" for n in range(MARKETS)]
    times = {"endDate": start + timedelta(hours=1), "updatedAt": start + timedelta(minutes=59), "liquidity": 1000}
    resolved = [{"id": m, "question": "?", "resolved": True, "resolution": rng.random() < 0.5} for m in markets]
    copy_rows(conn, "Market", [row | times for row in resolved])
    trades: list[dict[str, Any]] = []
    rows = [_trajectory(rng, window, n, steps, markets, trades) for n in range(trajectories)]
    copy_rows(conn, "AgentTrade", trades)
    copy_rows(conn, "trajectories", rows)


def _trajectory(
    rng: random.Random, window: str, number: int, steps: int, markets: list[str], trades: list[dict[str, Any]]
) -> dict[str, Any]:
    start, agent, name = HOURLY.bounds(window)[0], f"agent-{number % AGENTS}", f"{window}-t{number}"
    written = []
    for n in range(steps):
        at = start + timedelta(seconds=30 * (10 * n) + number // AGENTS * 300 % 3000 // 60)
        kind, market, side = rng.choice(_KINDS), rng.choice(markets), rng.choice(["YES", "NO"])
        if kind == "BUY_SHARES":
            trades.append(_trade(rng, f"{name}-{n}", agent, market, side, at))
        written.append(step(rng, n, int(at.timestamp() * 1000), kind, market, side, agent))
    return trajectory_row(window, name, agent, json.dumps(written, ensure_ascii=False, separators=(",", ":")), steps)


def _trade(rng: random.Random, name: str, agent: str, market: str, side: str, at: datetime) -> dict[str, Any]:
    return {
        **{"id": name, "agentUserId": agent, "marketType": "prediction", "marketId": market, "action": "buy"},
        **{"side": side.lower(), "amount": 10.0, "executedAt": at, "price": round(rng.uniform(0.1, 0.9), 2)},
    }


def trajectory_row(window: str, name: str, agent: str, steps_json: str, steps: int) -> dict[str, Any]:
    """A row of the game's `trajectories` with every column that has no default."""
    start, end = HOURLY.bounds(window)[0], HOURLY.bounds(window)[0] + timedelta(minutes=59)
    return {
        **{"id": name, "trajectoryId": name, "agentId": agent, "startTime": start, "endTime": end},
        **{"durationMs": 1, "windowId": window, "scenarioId": window, "stepsJson": steps_json},
        **dict.fromkeys(("rewardComponentsJson", "metricsJson", "metadataJson"), "{}"),
        **{"totalReward": 0.0, "episodeLength": steps, "finalStatus": "completed", "updatedAt": end},
    }


def step(
    rng: random.Random, number: int, at: int, kind: str, market: str, side: str, agent: str = "agent-0"
) -> dict[str, Any]:
    """A step with one call, as the game writes it: about 2 KB."""
    seen = "\n".join(" ".join(rng.choices(_WORDS, k=17)) for _ in range(10))
    return {
        **{"stepNumber": number, "timestamp": at, "reward": 0.0, "providerAccesses": []},
        "environmentState": {"agentBalance": 1000.0, "agentPnL": rng.uniform(-50, 50), "openPositions": 0},
        "llmCalls": [
            {
                **{
                    "model": "gpt-4o-mini",
                    "systemPrompt": _system(agent),
                    "userPrompt": f"The market, \u201ctoday\u201d:\n{seen}",
                },
                **{"response": f"I choose {kind} {market} {side}.", "temperature": 1.0, "maxTokens": 64},
                "purpose": "action",
            }
        ],
        "action": {
            **{"actionType": kind, "success": kind != "INVALID_ACTION"},
            "parameters": {"marketType": "prediction", "marketId": market, "side": side, "amount": 10},
        },
    }


def _system(agent: str) -> str:
    return f"You are {agent} and trade. " + " ".join(random.Random(agent).choices(_WORDS, k=85))
