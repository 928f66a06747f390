"""Half of a gateway's clients misbehave: the other half is answered almost as before, and nothing of it is lost.

Then the last round's episodes of the honest are written into the game's record, and their hour is trained: every call
of theirs is in the dataset, with its own tokens, and no call of the crowd.

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
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_tables import copy_rows, create_game_tables
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.ledger.database import Connection, Database, migrate, open_database
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.orchestration.assets.raw_trajectories import copy_window
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import score_window
from babylon_assets.serving.http.keys import new_key
from babylon_assets.serving.process import GatewayProcess
from babylon_assets.training.window_training import train_window
from tests.domain.rows import call, step
from tests.environments.babylon.rows import add_trajectories, add_users, market, quote, trade, trajectory
from tests.gateways import wait_for
from tests.scenarios.processes import memory

pytestmark = pytest.mark.soak
SECONDS = float(os.environ.get("CROWD_SECONDS", "3600"))
#: Honest clients, and as many hostile ones; rounds of a quiet time and one with the crowd.
CLIENTS, ROUNDS = 8, 6
#: Answers of an honest client's episode, and how many of its last episodes the game records.
STEPS, EPISODES = 8, 20
#: How their hour is trained: on what came of each trade.
TRAINED: dict[str, Any] = {"environment": "babylon", "reward_weights": {"outcome": 1.0}, "lora_rank": 4}
#: What the engine may keep of long conversations, in megabytes, and by how much the gateway's process may grow in the
#: second half of the rounds, in bytes: the crowd's long prompts may fill this at any time.
CACHE_MB, GROWTH = 64, 100_000_000


@dataclass(frozen=True)
class Played:
    """An honest client's answered question, as the game would record it."""

    agent: str
    trajectory: str
    step: int
    asked_at: datetime
    messages: list[dict[str, str]]
    id: str
    answer: str


@dataclass
class Honest:
    """Clients that ask, read, think and ask again."""

    port: int
    key: str
    played: list[Played] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def _ask_for(self, number: int, seconds: float, latencies: list[float]) -> None:
        rng, boards = random.Random(number), [lesson.messages for lesson in draw_demonstrations(seed=number, count=8)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        began, ends, done = f"{time.monotonic():.3f}", time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            agent, trajectory, step = f"agent-{number}", f"t-{number}-{began}-{done // STEPS}", done % STEPS
            messages = [{"role": message.role, "content": message.content} for message in rng.choice(boards)]
            body = {"model": "babylon-agent", "messages": messages, "max_tokens": 8, "user": agent}
            content = json.dumps({**body, "metadata": {"trajectory": trajectory, "step": str(step)}}).encode()
            asked, asked_at = time.perf_counter(), datetime.now(UTC)
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
                said = json.loads(reply)
                self.ids.append(said["id"])
                text = said["choices"][0]["message"]["content"]
                self.played.append(Played(agent, trajectory, step, asked_at, messages, said["id"], text))
                done += 1
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
    settings = own_server.replace(
        gateway_keys=f"honest:{honest_hash}:agent-*,hostile:{hostile_hash}", gateway_cache_mb=CACHE_MB
    )
    database = open_database(own_server)
    quiet, crowded, outcomes = list[float](), list[float](), dict[str, int]()
    with database.connect() as conn:
        create_game_tables(conn)
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
    _train_on_the_honest(
        own_server.replace(**TRAINED), database, honest.played, {name for name in by_id if by_id[name][0] == "hostile"}
    )
    assert sizes[-1] - sizes[ROUNDS // 2] < GROWTH
    assert quantiles(crowded, n=100)[98] <= 2 * quantiles(quiet, n=100)[98]


def _train_on_the_honest(settings: Settings, database: Database, played: list[Played], hostile: set[str]) -> None:
    """Train the hour that has most of the last whole episodes; of the crowd's calls that came in it, none is in it."""
    episodes = _whole_episodes(played)
    hours = Counter(HOURLY.of(episode[0].asked_at).id for episode in episodes)
    window, _ = hours.most_common(1)[0]
    chosen = [episode for episode in episodes if HOURLY.of(episode[0].asked_at).id == window]
    with database.connect() as conn:
        _record(conn, window, chosen)
    installation = Installation(settings, database)
    copy_window(installation, window)
    score_window(installation, window)
    dataset = freeze_window(installation, window)[0]
    trained = train_window(settings, database, window)
    honest = {(own.trajectory, own.step): own.id for episode in chosen for own in episode}
    with database.connect() as conn:
        calls = calls_by_id(conn, [*honest.values(), *hostile])
    samples = {(sample.trajectory_id, sample.step): sample for sample in dataset.samples}
    assert len(dataset.samples) == len(samples) == len(honest)
    assert {place: sample.token_ids for place, sample in samples.items()} == {
        place: calls[call_id].token_ids for place, call_id in honest.items()
    }
    assert dataset.counts["calls_joined"] == len(honest)
    in_hour = [name for name in hostile if (at := calls[name].received_at) and HOURLY.of(at).id == window]
    modes = Counter(sample.trains_as for sample in dataset.samples)
    counted = {"window": window, "honest calls in it": len(honest), "hostile calls in it": len(in_hour)}
    sys.stdout.write(json.dumps({**counted, "trained": modes, "counts": dataset.counts}, indent=2) + "\n")
    assert in_hour
    assert trained.status == "trained"
    assert modes["policy_gradient"] > len(honest) / 2


def _whole_episodes(played: list[Played]) -> list[list[Played]]:
    """The last whole episodes of each agent."""
    by_agent: dict[str, dict[str, list[Played]]] = defaultdict(lambda: defaultdict(list))
    for own in played:
        by_agent[own.agent][own.trajectory].append(own)
    whole = [[calls for calls in named.values() if len(calls) == STEPS] for named in by_agent.values()]
    return [episode for episodes in whole for episode in episodes[-EPISODES:]]


def _record(conn: Connection, window: str, episodes: list[list[Played]]) -> None:
    """Write episodes as the game does: each step bought a share, every other one the right one."""
    add_users(conn, *sorted({episode[0].agent for episode in episodes}))
    copy_rows(conn, "Market", [market("m1", question="Will ACME ship?", resolved=True, resolution=True)])
    began = min(episode[0].asked_at for episode in episodes)
    copy_rows(conn, "PredictionPriceHistory", [{**quote("q1", 0.4, 0), "createdAt": began - timedelta(minutes=1)}])
    trades: list[dict[str, Any]] = []
    for number, episode in enumerate(episodes):
        steps = []
        for played in episode:
            side = "yes" if (played.step + number) % 2 else "no"
            odds = 0.4 if side == "yes" else 0.6
            bought = {"marketType": "prediction", "marketId": "m1", "side": side.upper(), "amount": 25}
            action = {"actionType": "BUY_PREDICTION_SHARES", "parameters": bought, "success": True}
            texts: dict[str, Any] = {"messages": played.messages, "response": played.answer, "model": "babylon-agent"}
            texts |= {"systemPrompt": None, "userPrompt": None, "callId": None}
            milliseconds = int(played.asked_at.timestamp() * 1000)
            steps.append(step(played.step, timestamp=milliseconds, action=action, llmCalls=[call(**texts)]))
            at = played.asked_at + timedelta(milliseconds=1)
            own = {"agentUserId": played.agent, "side": side, "price": odds / (1 - odds), "executedAt": at}
            trades.append(trade(played.id, **own))
        times = {"startTime": episode[0].asked_at, "endTime": episode[-1].asked_at + timedelta(seconds=1)}
        about = {"agentId": episode[0].agent, "windowId": window, "scenarioId": window}
        add_trajectories(conn, trajectory(episode[0].trajectory, steps, **about, **times))
    copy_rows(conn, "AgentTrade", trades)


def _crowd(port: int, key: str, seconds: float) -> subprocess.Popen[str]:
    arguments: list[Any] = [sys.executable, "-m", "tests.scenarios.hostile_crowd", port, key, seconds, CLIENTS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([*map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment)
