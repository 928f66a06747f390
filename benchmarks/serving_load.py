"""The two ends of `benchmarks.serving_overhead`, each in a process of its own: a server that answers at once, and load.

`python -m benchmarks.serving_load serve` prints its port and answers every question with the same bytes.
`python -m benchmarks.serving_load ask PORT RATE COUNT` asks COUNT questions, RATE a second whatever comes back, and
prints the milliseconds of each from when it was due. A request that finds no free connection opens another.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_PIECE = {"index": 0, "message": {"role": "assistant", "content": "hold"}, "finish_reason": "stop"}
_USAGE = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
_ANSWER = json.dumps(
    {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [_PIECE], "usage": _USAGE}
)
_QUESTION = json.dumps(
    {"model": "default", "messages": [{"role": "user", "content": "A yes 40. " * 100}], "max_tokens": 64}
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reply = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_ANSWER)}\r\n\r\n{_ANSWER}".encode()
    )
    try:
        while True:
            await _read(reader)
            writer.write(reply)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The head of a message, after which its body was read."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
    return head


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _ask(port: int, rate: float, count: int) -> None:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer any\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(_QUESTION)}\r\n\r\n{_QUESTION}".encode()
    taken: list[float] = []

    async def one(due: float) -> None:
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        reply = await _read(reader)
        taken.append(1000 * (time.perf_counter() - due))
        if b" 200 " not in reply.split(b"\r\n", 1)[0]:
            raise RuntimeError(reply.decode())
        free.append((reader, writer))

    started, asked = time.perf_counter(), []
    for number in range(count):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asked.append(asyncio.create_task(one(due)))
    await asyncio.gather(*asked)
    print(json.dumps(taken))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve())
    else:
        asyncio.run(_ask(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
