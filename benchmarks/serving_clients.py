"""Clients for `benchmarks.serving`, in a process of their own: HTTP by hand, so that they take as little as possible of
the machine that they measure.

`python -m benchmarks.serving_clients PORT CLIENTS TOKENS` reads conversations as JSON from standard input, asks them
with so many clients at once, each with a connection that stays open, and prints tokens, seconds and latencies as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

Question = tuple[int, list[dict[str, str]]]


async def _client(port: int, tokens: int, questions: Iterator[Question], latencies: list[float]) -> int:
    """Ask until no question is left; gives the tokens of the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = 0
    for seed, messages in questions:
        told = {
            "model": "babylon-agent",
            "messages": messages,
            "seed": seed,
            "max_tokens": tokens,
            "user": f"agent-{seed}",
        }
        body = json.dumps(told).encode()
        asked = time.perf_counter()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        reply = await _reply(reader)
        latencies.append(1000 * (time.perf_counter() - asked))
        answered += int(reply["usage"]["completion_tokens"])
    writer.close()
    return answered


async def _reply(reader: asyncio.StreamReader) -> Any:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
    body = await reader.readexactly(length)
    if " 200 " not in head.splitlines()[0]:
        raise RuntimeError(body.decode())
    return json.loads(body)


async def _all(port: int, clients: int, tokens: int, questions: list[list[dict[str, str]]]) -> None:
    waiting, latencies = iter(enumerate(questions)), list[float]()
    started = time.perf_counter()
    counts = await asyncio.gather(*(_client(port, tokens, waiting, latencies) for _ in range(clients)))
    print(json.dumps([sum(counts), time.perf_counter() - started, latencies]))


if __name__ == "__main__":
    at, many, longest = map(int, sys.argv[1:4])
    asyncio.run(_all(at, many, longest, json.load(sys.stdin)))
