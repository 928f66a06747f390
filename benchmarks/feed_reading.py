"""Reading a window of Feed beside one of Babylon: what a byte of either costs until its trajectories are decoded.

Feed's prompts are 15 KB and its ticks have one or two attempts; Babylon's are 2 KB and there are twelve a trajectory.
Both are read by the product's own reader, in turns, out of one embedded server; cpu is that of this process and the
server's together. Memory is the largest of this process while it reads and keeps nothing.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_record import read_window
from babylon_assets.environments.babylon.game_tables import copy_rows, create_game_tables
from babylon_assets.environments.babylon.schema import BABYLON_GAME, RecordedGame, look_at_schema
from babylon_assets.environments.feed.game import FEED_GAME
from babylon_assets.ledger.database import Database, migrate, open_database, stop_embedded
from benchmarks.datapath.measure import measured
from benchmarks.datapath.rows import trajectory_row, write_window
from benchmarks.report import Row, at_most, publish

BABYLON_WINDOW, FEED_WINDOW = "2026-10-01T00:00", "2026-10-01T01:00"
TRAJECTORIES, PROMPT, ROUNDS = 2000, 15_000, 5
_WORDS = [f"w{number:05d}" for number in range(5000)]


def main() -> None:
    """Print what a byte of each costs, and how many times as much Feed's costs."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(home=Path(scratch))
        try:
            rows = _rows(own)
        finally:
            stop_embedded(own)
            shutil.rmtree(own.home / "postgres", ignore_errors=True)
    publish("feed_reading", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(settings: Settings) -> list[Row]:
    database = open_database(settings)
    migrate(database)
    with database.connect() as conn:
        create_game_tables(conn)
        write_window(conn, BABYLON_WINDOW)
        copy_rows(conn, "trajectories", list(_feed_rows()))
    with database.connect_autocommit() as conn:
        conn.execute("VACUUM ANALYZE")
    server = int((settings.home / "postgres" / "postmaster.pid").read_text().split()[0])
    games = {"Babylon": (BABYLON_WINDOW, BABYLON_GAME), "Feed": (FEED_WINDOW, FEED_GAME)}
    spent: dict[str, list[float]] = {name: [] for name in games}
    for _ in range(ROUNDS):
        for name, (window, game) in games.items():
            took = measured(lambda window=window, game=game: _read(database, window, game), server)  # type: ignore[misc]
            spent[name].append(took.cpu + took.server)
    sizes = {name: _size(database, window) for name, (window, _) in games.items()}
    cost = {name: statistics.median(seconds) / sizes[name] for name, seconds in spent.items()}
    return [
        *(Row(f"{name}: {TRAJECTORIES} trajectories", sizes[name] / 1e6, "MB") for name in games),
        *(Row(f"{name}: a megabyte, cpu with the server's", cost[name] * 1e6 * 1000, "ms") for name in games),
        Row("largest memory while reading", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
        at_most("Feed's byte over Babylon's", cost["Feed"] / cost["Babylon"], "times", 1.5),
    ]


def _read(database: Database, window: str, game: RecordedGame) -> None:
    with database.connect() as conn:
        schema = look_at_schema(conn, game)
        count = sum(1 for _ in read_window(conn, window, odd=(), schema=schema))
    assert count == TRAJECTORIES, count


def _size(database: Database, window: str) -> int:
    query = """SELECT sum(octet_length("stepsJson")) FROM public.trajectories WHERE "windowId" = %s"""
    with database.connect() as conn:
        return int((conn.execute(query, [window]).fetchone() or [0])[0])


def _feed_rows() -> Iterator[dict[str, Any]]:
    rng, start = random.Random(FEED_WINDOW), HOURLY.bounds(FEED_WINDOW)[0]
    for number in range(TRAJECTORIES):
        at = int(start.timestamp() * 1000) + number * 1000
        steps = json.dumps([_feed_step(rng, at)], ensure_ascii=False, separators=(",", ":"))
        yield trajectory_row(FEED_WINDOW, f"feed-{number}", f"agent-{number % 200}", steps, 1)


def _feed_step(rng: random.Random, at: int) -> dict[str, Any]:
    prompt = "\n".join(" ".join(rng.choices(_WORDS, k=17)) for _ in range(PROMPT // (17 * 7)))
    answer = {"thought": "Yes is cheap.", "action": "TRADE", "parameters": {"marketId": "33572", "side": "buy_yes"}}
    attempts = [json.dumps(answer)] if rng.random() < 0.8 else ["I wait", json.dumps(answer)]
    call = {"model": "huggingface", "systemPrompt": "You trade.", "temperature": 0.7, "maxTokens": 1000}
    parameters = {"marketType": "prediction", "marketId": "33572", "side": "buy_yes", "amount": 40}
    result = {"success": True, "marketId": "33572", "ticker": None, "side": "YES", "shares": 48.27, "error": None}
    return {
        **{"stepNumber": 0, "timestamp": at, "providerAccesses": [], "reward": 0.1},
        "environmentState": {"timestamp": at, "agentBalance": 950, "agentPnL": -3.1, "openPositions": 1},
        "llmCalls": [
            {**call, "userPrompt": prompt, "response": text, "purpose": "action", "latencyMs": 640} for text in attempts
        ],
        "action": {"actionType": "TRADE", "success": True, "parameters": parameters, "result": result},
    }


if __name__ == "__main__":
    main()
