"""Half of a gateway's clients misbehave: the other half is answered almost as before, and nothing of it is lost.

`make soak` plays it for an hour, or for `CROWD_SECONDS`. What it measured is printed, and shown by `-s`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.ledger.database import migrate, open_database
from babylon_assets.serving.http.keys import new_key
from babylon_assets.serving.process import GatewayProcess
from tests.gateways import wait_for
from tests.scenarios.processes import memory

pytestmark = pytest.mark.soak
SECONDS = float(os.environ.get("CROWD_SECONDS", "3600"))
#: Honest clients, and as many hostile ones; rounds of a quiet time and one with the crowd.
CLIENTS, ROUNDS = 8, 6
#: By how much the gateway's process may grow between two rounds of the crowd, in bytes.
GROWTH = 100_000_000


@dataclass
class Honest:
    """Clients that ask, read, think and ask again."""

    port: int
    key: str
    ids: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def _ask_for(self, number: int, seconds: float, latencies: list[float]) -> None:
        rng, boards = random.Random(number), [lesson.messages for lesson in draw_demonstrations(seed=number, count=8)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            messages = [{"role": message.role, "content": message.content} for message in rng.choice(boards)]
            body = {"model": "babylon-agent", "messages": messages, "max_tokens": 8, "user": f"agent-{number}"}
            content = json.dumps({**body, "metadata": {"trajectory": f"t-{number}"}}).encode()
            asked = time.perf_counter()
            writer.write(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {self.key}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
            reply = await reader.readexactly(length)
            latencies.append(time.perf_counter() - asked)
            if " 200 " in head.splitlines()[0]:
                self.ids.append(json.loads(reply)["id"])
            else:
                self.failed.append(reply.decode())
            await asyncio.sleep(rng.uniform(0.02, 0.1))
        writer.close()

    def ask_for(self, seconds: float) -> list[float]:
        """The latency of each request, in seconds."""
        latencies: list[float] = []

        async def ask() -> None:
            await asyncio.gather(*(self._ask_for(number, seconds, latencies) for number in range(CLIENTS)))

        asyncio.run(ask())
        return latencies


@pytest.fixture
def own_server(passable_home: Path, tiny_base: Path) -> Settings:
    settings = Settings(home=passable_home, base_model=str(tiny_base))
    migrate(open_database(settings))
    return settings


def test_the_honest_are_answered_beside_a_hostile_crowd(own_server: Settings) -> None:
    (honest_key, honest_hash), (hostile_key, hostile_hash) = new_key(), new_key()
    settings = own_server.replace(gateway_keys=f"honest:{honest_hash}:agent-*,hostile:{hostile_hash}")
    database = open_database(own_server)
    quiet, crowded, outcomes = list[float](), list[float](), dict[str, int]()
    with GatewayProcess(settings, subprocess_environment(settings, database.dagster_url)) as gateway:
        honest = Honest(gateway.port, honest_key)
        honest.ask_for(2)
        sizes = [memory(gateway.pid)]
        for _ in range(ROUNDS):
            quiet += honest.ask_for(SECONDS / ROUNDS / 3)
            seconds = SECONDS / ROUNDS * 2 / 3
            with _crowd(gateway.port, hostile_key, seconds + 1) as crowd:
                time.sleep(1)
                crowded += honest.ask_for(seconds)
                told, _ = crowd.communicate(timeout=90)
            for name, count in json.loads(told).items():
                outcomes[name] = outcomes.get(name, 0) + count
            time.sleep(2)
            sizes.append(memory(gateway.pid))
        root = gateway.url.removesuffix("/v1")
        wait_for(lambda: httpx.get(f"{root}/health").json()["records_waiting_bytes"] == 0, 60)
        metrics = httpx.get(f"{root}/metrics", headers={"authorization": f"Bearer {honest_key}"}).text
    numbers = {
        "honest requests": len(honest.ids),
        "quiet p50, p99 in ms": [round(1000 * median(quiet), 1), round(1000 * quantiles(quiet, n=100)[98], 1)],
        "crowded p50, p99 in ms": [round(1000 * median(crowded), 1), round(1000 * quantiles(crowded, n=100)[98], 1)],
        "megabytes before, and after each round": [round(size / 1e6, 1) for size in sizes],
        "hostile": outcomes,
        "refused": [line for line in metrics.splitlines() if "_refused_total{" in line],
    }
    sys.stdout.write(json.dumps(numbers, indent=2) + "\n")
    assert honest.failed == []
    with database.connect() as conn:
        rows = conn.execute("SELECT call_id, key_name, agent_id FROM babylon_training.inference_calls").fetchall()
    by_id = {call_id: (key, agent) for call_id, key, agent in rows}
    assert len(by_id) == len(rows)
    assert {by_id[call_id][0] for call_id in honest.ids} == {"honest"}
    assert {agent for key, agent in by_id.values() if key == "hostile"} <= {"mallory", None}
    assert sizes[-1] - sizes[1] < GROWTH  # the first long prompts make room for such in the engine
    assert quantiles(crowded, n=100)[98] <= 2 * quantiles(quiet, n=100)[98]


def _crowd(port: int, key: str, seconds: float) -> subprocess.Popen[str]:
    arguments: list[Any] = [sys.executable, "-m", "tests.scenarios.hostile_crowd", port, key, seconds, CLIENTS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([*map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment)
