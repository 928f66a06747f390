"""The two ends of `benchmarks.serving_overhead`, each in a process of its own: a server that answers at once, and load.

`python -m benchmarks.serving_load serve` prints its port and answers every question with the same bytes, as a stream
where that is asked for. `python -m benchmarks.serving_load ask PORT RATE COUNT [stream]` asks COUNT questions, RATE a
second whatever comes back, and prints the milliseconds of each from when it was due, to the end of a reply or to the
first text of a stream, and how many were not answered. A request that finds no free connection opens another.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from babylon_assets.serving.http.connections import raise_open_files

#: What no server that keeps up with the load ever takes.
MOST_SECONDS = 60.0
_TEXT = "hold"
_FRAME = {"id": "1", "created": 0, "model": "m"}
_USAGE = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
_MESSAGE = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
_ANSWER = json.dumps({**_FRAME, "object": "chat.completion", "choices": [_MESSAGE], "usage": _USAGE}).encode()
_CHOICES = [
    {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
    {"index": 0, "delta": {"content": _TEXT}, "finish_reason": None},
    {"index": 0, "delta": {}, "finish_reason": "stop"},
]
_CHUNKS = [json.dumps({**_FRAME, "object": "chat.completion.chunk", "choices": [choice]}) for choice in _CHOICES]
_EVENTS = "".join(f"data: {data}\n\n" for data in [*_CHUNKS, "[DONE]"]).encode()
_QUESTION = {"model": "default", "messages": [{"role": "user", "content": "A yes 40. " * 100}], "max_tokens": 64}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
_WHOLE = _HEAD % b"application/json" + b"content-length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)
_STREAM = _HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    len(_EVENTS),
    _EVENTS,
)
#: In a reply, and nowhere in its head.
_MARK = b'"content":"' + _TEXT.encode() + b'"'


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head) or 0)
            writer.write(_STREAM if b'"stream":true' in body.replace(b" ", b"") else _WHOLE)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _length(head: bytes) -> int | None:
    """The length that a head gives its body; None where the body comes in chunks."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _first(reader: asyncio.StreamReader) -> float:
    """When a reply was there, or the first text of a stream was; all of it is read.

    Raises:
        ConnectionError: it is no answer.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    length = _length(head)
    if length is not None:
        body = await reader.readexactly(length)
        came = time.perf_counter()
    else:
        body, came = b"", 0.0
        while not body.endswith(b"0\r\n\r\n"):
            piece = await reader.read(65_536)
            if not piece:
                raise ConnectionError("a stream was broken off")
            body += piece
            came = came or (time.perf_counter() if _MARK in body.replace(b" ", b"") else 0.0)
    if b" 200 " not in head.split(b"\r\n", 1)[0] or _MARK not in body.replace(b" ", b""):
        raise ConnectionError(body.decode(errors="replace")[:300])
    return came


async def _ask(port: int, rate: float, count: int, *, stream: bool) -> None:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    question = json.dumps(_QUESTION | {"stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer any\r\n"
    request = head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(question), question)
    taken, reasons = list[float](), list[str]()

    async def send(due: float) -> None:
        try:
            async with asyncio.timeout(MOST_SECONDS):
                reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                taken.append(1000 * (await _first(reader) - due))
            free.append((reader, writer))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            reasons.append(repr(error))

    started, asked = time.perf_counter(), []
    for number in range(count):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asked.append(asyncio.create_task(send(due)))
    await asyncio.gather(*asked)
    print(json.dumps({"taken": taken, "failed": len(reasons), "reasons": reasons[:3]}))


if __name__ == "__main__":
    raise_open_files()
    if sys.argv[1] == "serve":
        asyncio.run(_serve())
    else:
        asyncio.run(_ask(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), stream="stream" in sys.argv[5:]))
