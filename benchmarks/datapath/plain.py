"""The plain way from the game's rows to a dataset: fetch all, `json.loads`, loops over dictionaries, JSON back.

What one writes first, here to be measured against: asyncpg and the standard library alone. It computes the same rewards
and advantages and writes the same things down (rows, scores, dataset and an index of its samples), without checking
what it reads, hashing rows or compressing anything.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

import asyncpg

Row = dict[str, Any]
TABLES = """
    CREATE SCHEMA IF NOT EXISTS plain;
    CREATE TABLE IF NOT EXISTS plain.raw (id text PRIMARY KEY, agent text, body text);
    CREATE TABLE IF NOT EXISTS plain.scores (id text PRIMARY KEY, scores text);
    CREATE TABLE IF NOT EXISTS plain.datasets (id text PRIMARY KEY, body text);
    CREATE TABLE IF NOT EXISTS plain.samples (
        dataset text, id text, agent text, "group" text, reward float8, advantage float8, trains_as text,
        PRIMARY KEY (dataset, id));
    TRUNCATE plain.raw, plain.scores, plain.datasets, plain.samples
"""
_ROWS = """
    SELECT "trajectoryId", "agentId", "stepsJson" FROM public.trajectories t JOIN public."User" u ON u.id = t."agentId"
    WHERE "windowId" = $1 AND "isTrainingData" AND NOT "isEvaluation" AND NOT u."isTest" AND NOT u."isBanned\""""
_TRADES = """
    SELECT "agentUserId", "marketId", price, extract(epoch FROM "executedAt")::float8 FROM public."AgentTrade"
    WHERE "agentUserId" = ANY($1) AND "executedAt" >= $2::text::timestamp - interval '1 hour'
      AND "executedAt" < $2::text::timestamp + interval '3 hours'"""
_INDEXED = ("sample_id", "agent", "group", "reward", "advantage", "trains_as")


async def run(url: str, window: str, model: str) -> dict[tuple[str, int], float | None]:
    """From rows to a kept dataset; returns the reward by (trajectory, step)."""
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            return await _run(conn, window, model)
    finally:
        await conn.close()


async def _run(conn: Any, window: str, model: str) -> dict[tuple[str, int], float | None]:
    rows = await conn.fetch(_ROWS, window)
    episodes = [{"id": row[0], "agent": row[1], "steps": json.loads(row[2])} for row in rows]
    bodies = [(each["id"], each["agent"], json.dumps(each["steps"])) for each in episodes]
    await conn.executemany("INSERT INTO plain.raw VALUES ($1, $2, $3)", bodies)
    scores = await _scores(conn, episodes, window)
    by_trajectory: dict[str, dict[int, float | None]] = defaultdict(dict)
    for (trajectory, step), reward in scores.items():
        by_trajectory[trajectory][step] = reward
    values = [(trajectory, json.dumps(found)) for trajectory, found in by_trajectory.items()]
    await conn.executemany("INSERT INTO plain.scores VALUES ($1, $2)", values)
    samples = _samples(episodes, scores, window, model)
    text = json.dumps(samples, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    await conn.execute("INSERT INTO plain.datasets VALUES ($1, $2)", digest, text)
    index = [(digest, *(sample[name] for name in _INDEXED)) for sample in samples]
    await conn.executemany("INSERT INTO plain.samples VALUES ($1, $2, $3, $4, $5, $6, $7)", index)
    return scores


async def _scores(conn: Any, episodes: list[Row], window: str) -> dict[tuple[str, int], float | None]:
    agents = sorted({each["agent"] for each in episodes})
    trades: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for agent, market, price, at in await conn.fetch(_TRADES, agents, window):
        trades[agent, market].append((1000 * at, price))
    found = await conn.fetch('SELECT id, resolution FROM public."Market" WHERE resolved')
    resolved = {row[0]: row[1] for row in found}
    worth: dict[tuple[str, int], float | None] = {}
    for each in episodes:
        for step in each["steps"]:
            worth[each["id"], step["stepNumber"]] = _worth(each["agent"], step, trades, resolved)
    heuristic = _heuristic(episodes, worth)
    return {
        (each["id"], step["stepNumber"]): None
        if (found := worth[each["id"], step["stepNumber"]]) is None
        else found + 0.1 * heuristic[each["agent"]]
        for each in episodes
        for step in each["steps"]
    }


def _worth(agent: str, step: Row, trades: Any, resolved: dict[str, bool]) -> float | None:
    action = step["action"]
    if action["actionType"] == "INVALID_ACTION":
        return -0.5
    if action["actionType"] == "HOLD":
        return 0.0
    market, side = action["parameters"]["marketId"], action["parameters"]["side"].lower()
    near = sorted((abs(at - step["timestamp"]), price) for at, price in trades.get((agent, market), ()))
    if market not in resolved or not near:
        return None
    price: float = near[0][1]
    return float(resolved[market] == (side == "yes")) - price


def _heuristic(episodes: list[Row], worth: dict[tuple[str, int], float | None]) -> dict[str, float]:
    steps: dict[str, list[tuple[int, float, float | None, bool]]] = defaultdict(list)
    for each in episodes:
        for step in each["steps"]:
            kind = step["action"]["actionType"]
            traded = kind not in ("HOLD", "INVALID_ACTION")
            pnl = step["environmentState"]["agentPnL"]
            steps[each["agent"]].append((step["timestamp"], pnl, worth[each["id"], step["stepNumber"]], traded))
    scores = {}
    for agent, found in steps.items():
        found.sort(key=lambda each: each[0])
        wins = sum(each[2] > 0 for each in found if each[3] and each[2] is not None)
        losses = sum(each[2] < 0 for each in found if each[3] and each[2] is not None)
        share = wins / (wins + losses) if wins + losses else 0.5
        profit = min(1.0, max(0.0, (found[-1][1] - found[0][1] + 1000) / 2000))
        scores[agent] = 0.5 * profit + 0.3 * share + 0.2 * min(1.0, len(found) / 20)
    return scores


def _samples(episodes: list[Row], scores: dict[tuple[str, int], float | None], window: str, model: str) -> list[Row]:
    samples = []
    for each in episodes:
        for step in each["steps"]:
            for index, call in enumerate(step["llmCalls"]):
                if call["purpose"] == "action":
                    samples.append(_sample(each, step, index, call, scores[each["id"], step["stepNumber"]], window))
    groups = defaultdict(list)
    for sample in samples:
        if sample["reward"] is not None:
            groups[sample["group"]].append(sample)
    for members in groups.values():
        mean = sum(sample["reward"] for sample in members) / len(members)
        members.sort(key=lambda sample: -sample["reward"])
        for rank, sample in enumerate(members):
            sample["advantage"] = sample["reward"] - mean
            better = rank < len(members) // 2 and sample["advantage"] > 0
            sample["trains_as"] = (
                "recompute" if sample["model"].startswith(f"{model}@") else "sft" if better else "skip"
            )
    return samples


def _sample(each: Row, step: Row, index: int, call: Row, reward: float | None, window: str) -> Row:
    return {
        "sample_id": f"{each['id']}/{step['stepNumber']}/{index}",
        "agent": each["agent"],
        "group": f"{window}/{step['timestamp'] // 30000}",
        "model": call["model"],
        "messages": [
            {"role": "system", "content": call["systemPrompt"]},
            {"role": "user", "content": call["userPrompt"]},
        ],
        "response": call["response"],
        "reward": reward,
        "advantage": None,
        "trains_as": "skip",
    }
