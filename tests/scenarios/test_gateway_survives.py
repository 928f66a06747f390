"""A gateway under load while PostgreSQL is killed and started again and another policy is promoted: no answer fails,
and each is recorded once, with the policy that gave it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.ledger import embedded_postgres
from babylon_assets.ledger.database import embedded_data, migrate, open_database
from babylon_assets.serving.process import GatewayProcess
from tests.gateways import Chain, recomputed, wait_for

CLIENTS = 16
#: Every so many requests, one whose client goes away.
LEAVES = 40


class Load:
    """Clients that ask so many questions, and go on until the story is told."""

    def __init__(self, url: str, requests: int) -> None:
        self._url, self._requests, self._numbers = url, requests, count()
        self._told = False
        boards = [demonstration.messages for demonstration in draw_demonstrations(seed=3, count=32)]
        self._asked = [[{"role": each.role, "content": each.content} for each in one] for one in boards]
        self.replies: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.left = 0
        self.asked = sys.maxsize

    async def run(self, chapters: dict[int, Any]) -> None:
        """Ask everything; each chapter is called, on a thread, when so many were answered."""
        story = asyncio.create_task(self._tell(chapters))
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as http:
            await asyncio.gather(*(self._client(http) for _ in range(CLIENTS)))
        await story

    async def _tell(self, chapters: dict[int, Any]) -> None:
        for reached, chapter in sorted(chapters.items()):
            while len(self.replies) < reached:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(chapter)
        self._told = True

    async def _client(self, http: httpx.AsyncClient) -> None:
        for number in self._numbers:
            if number >= self._requests and self._told:
                self.asked = min(self.asked, number)
                return
            body = {
                "model": "babylon-agent",
                "messages": self._asked[number % len(self._asked)],
                "seed": number,
                "max_tokens": 16,
                "user": f"agent-{number}",
            }
            leaves = number % LEAVES == LEAVES - 1
            try:
                reply = await http.post(f"{self._url}/chat/completions", json=body, timeout=0.003 if leaves else 120)
            except httpx.TimeoutException:
                assert leaves
                self.left += 1
                continue
            if reply.status_code == 200:
                self.replies.append(reply.json())
            else:
                self.failed.append(reply.text)


@pytest.fixture
def own_server(passable_home: Path, tiny_base: Path) -> Settings:
    """Settings of a home whose PostgreSQL may be killed."""
    settings = Settings(home=passable_home, base_model=str(tiny_base), gateway_policies=2)
    migrate(open_database(settings))
    return settings


def kill_postgres(settings: Settings) -> None:
    pid = int((embedded_data(settings) / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)


def start_postgres(settings: Settings) -> None:
    """The new server waits for the last process of the old one to notice that it is alone."""
    deadline = time.monotonic() + 60
    while True:
        try:
            embedded_postgres.start(embedded_data(settings))
            return
        except DatabaseUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("requests", [600, pytest.param(10_000, marks=pytest.mark.soak)])
def test_answers_go_on_and_each_is_recorded_once_with_its_policy(
    own_server: Settings, tiny_base: Path, tmp_path: Path, requests: int
) -> None:
    database = open_database(own_server)
    chain = Chain(database, tiny_base, tmp_path / "checkpoints")
    chain.add(1)
    chain.promote(0)
    with GatewayProcess(own_server, subprocess_environment(own_server, database.dagster_url)) as gateway:
        load = Load(gateway.url, requests)
        health = gateway.url.replace("/v1", "/health")
        told: list[Any] = []

        def promote_when_it_is_back() -> None:
            wait_for(lambda: httpx.get(health).json()["status"] == "degraded", 10)  # it looks twice a second
            told.append(httpx.get(health).json())
            start_postgres(own_server)
            chain.promote(1)
            wait_for(lambda: httpx.get(health).json()["policy"] == "babylon-agent@1", 10)
            time.sleep(0.5)

        asyncio.run(
            load.run({requests // 4: lambda: kill_postgres(own_server), requests // 2: promote_when_it_is_back})
        )
        wait_for(lambda: httpx.get(health).json()["records_waiting_bytes"] == 0, 60)
    assert load.failed == []
    assert (told[0]["status"], told[0]["database"]) == ("degraded", False)
    assert told[0]["records_waiting_bytes"] > 0
    assert 0 < load.left <= load.asked // LEAVES
    assert len(load.replies) + load.left == load.asked >= requests
    with database.connect() as conn:
        rows = conn.execute(
            "SELECT call_id, policy, agent_id, prompt_token_ids, token_ids, logprobs "
            "FROM babylon_training.inference_calls"
        ).fetchall()
    by_id = {row[0]: row for row in rows}
    assert len(by_id) == len(rows) <= load.asked
    policies = Counter(reply["model"] for reply in load.replies)
    assert set(policies) == {"babylon-agent@0", "babylon-agent@1"}
    for reply in load.replies:
        assert by_id[reply["id"]][1] == reply["model"]
    assert len({row[2] for row in rows}) == len(rows)
    for _, policy, _, prompt, answer, logprobs in rows[:: max(1, requests // 600)]:
        adapter = chain.adapter(1) if policy == "babylon-agent@1" else None
        assert logprobs == pytest.approx(recomputed(tiny_base, adapter, prompt, answer), abs=1e-4)
