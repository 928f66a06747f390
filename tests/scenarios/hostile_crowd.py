"""Clients that misbehave in every way that is known, in a process of their own.

`python -m tests.scenarios.hostile_crowd PORT KEY SECONDS CLIENTS` plays them, and prints their answers' counts as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from babylon_assets.environments.simulated.demonstrations import draw_demonstrations

#: How long a client that does nothing is waited for by nobody here.
IDLE_SECONDS = 3.0


@dataclass
class Client:
    """One of the crowd; what it was answered is counted by what it did."""

    port: int
    key: str
    random: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def request(self, **changes: Any) -> bytes:
        body = {
            "model": "babylon-agent",
            "messages": [{"role": "user", "content": "A yes 40"}],
            "max_tokens": 400,
            "user": "mallory",
            **changes,
        }
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def ask(self, name: str, **changes: Any) -> str:
        reader, writer = await self.connect()
        try:
            writer.write(self.request(**changes))
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 60)
            status = line.split(b" ")[1].decode() if line else "closed"
        finally:
            writer.close()
        self.outcomes[f"{name} {status}"] += 1
        return status

    async def dribble(self) -> None:
        """A head that comes a byte at a time and does not end."""
        _, writer = await self.connect()
        for byte in b"GET /health HTTP/1.1":
            writer.write(bytes([byte]))
            await asyncio.sleep(IDLE_SECONDS / 20)
        writer.close()

    async def hold_halves(self) -> None:
        """Many connections with half a request."""
        writers = [(await self.connect())[1] for _ in range(30)]
        for writer in writers:
            writer.write(self.request()[:-10])
        await asyncio.sleep(IDLE_SECONDS)
        for writer in writers:
            writer.close()

    async def never_read(self) -> None:
        _, writer = await self.connect()
        writer.write(self.request(stream=True, n=8, logprobs=True, top_logprobs=20))
        await asyncio.sleep(IDLE_SECONDS)
        writer.close()

    async def vanish(self) -> None:
        for _ in range(10):
            _, writer = await self.connect()
            writer.write(self.request(stream=self.random.random() < 0.5))
            await asyncio.sleep(0.02)
            writer.close()

    async def send_endless_headers(self) -> None:
        _, writer = await self.connect()
        writer.write(b"GET /health HTTP/1.1\r\n")
        for _ in range(200):
            writer.write(b"X-More: " + b"y" * 4000 + b"\r\n")
            await writer.drain()
        writer.close()

    async def send_huge_prompt(self) -> None:
        await self.ask("huge", messages=[{"role": "user", "content": "A yes 40 " * 100_000}])

    async def send_long_prompt(self) -> None:
        await self.ask("long", messages=[{"role": "user", "content": "A yes 40 " * 1500}], max_tokens=1)

    async def claim(self) -> None:
        """Others' agents and trajectories, the same body again and again."""
        for _ in range(10):
            named = {"trajectory": "t-1", "step": "0"}
            await self.ask("claim", user="agent-1", metadata=named, seed=1, max_tokens=1)
            await self.ask("trajectory", user=None, metadata=named, seed=1, max_tokens=1)

    async def copy(self) -> None:
        """What the honest ask at this moment, without a name and for others: a call that fits their steps."""
        number = self.random.randrange(8)
        lesson = self.random.choice(list(draw_demonstrations(seed=number, count=8)))
        messages = [{"role": message.role, "content": message.content} for message in lesson.messages]
        for agent in (None, "mallory", f"agent-{number}"):
            await self.ask("copy", messages=messages, user=agent, max_tokens=8)

    async def retry(self) -> None:
        """Everything at once, again at once where it is refused."""
        for _ in range(5):
            await asyncio.gather(*(self.ask("retry", n=16, max_tokens=1000) for _ in range(4)))

    async def guess_keys(self) -> None:
        for _ in range(20):
            reader, writer = await self.connect()
            writer.write(self.request().replace(self.key.encode(), b"bab-guessed"))
            self.outcomes[f"guess {(await reader.readline())[9:12].decode()}"] += 1
            writer.close()

    @property
    def moves(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.dribble,
            self.hold_halves,
            self.never_read,
            self.vanish,
            self.send_endless_headers,
            self.send_huge_prompt,
            self.send_long_prompt,
            self.claim,
            self.copy,
            self.retry,
            self.guess_keys,
        ]

    async def play(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                await asyncio.wait_for(self.random.choice(self.moves)(), max(0.1, ends - time.monotonic()))


async def play(port: int, key: str, seconds: float, count: int) -> Counter[str]:
    clients = [Client(port, key, random.Random(number)) for number in range(count)]
    await asyncio.gather(*(client.play(seconds) for client in clients))
    return sum((client.outcomes for client in clients), Counter())


if __name__ == "__main__":
    os.nice(19)  # what is measured is the gateway, not who is left a processor by its clients
    sys.stdout.write(json.dumps(asyncio.run(play(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))))
