"""A streamed answer as server-sent events.

What is sampled is taken in and recorded as it comes, whether or not the client reads; it is written as fast as the
client does. So the places are given back when sampling ends, and a client that does not read holds only its own text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.accepted_request import AcceptedRequest
from babylon_assets.serving.http.forms.form import StreamWriter
from babylon_assets.serving.http.protocol import ApiError

#: How long a client may take to read the rest of an answer that has ended.
READ_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Watch:
    """Cancels the task that makes it when the client goes away."""

    def __init__(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._wait(receive, asyncio.current_task()))

    @property
    def client_gone(self) -> bool:
        return self._task.done()

    def end(self) -> None:
        """Cancel nobody any more."""
        self._task.cancel()

    async def _wait(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if task is not None:
            task.cancel()


class Events(Response):
    """The response of one stream.

    Args:
        first: the piece that was waited for before the response began.
        held: what is let go of when sampling has ended.
    """

    def __init__(
        self, accepted: AcceptedRequest, first: Piece, pieces: AsyncGenerator[Piece], held: ExitStack, watch: Watch
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache", **accepted.headers})
        self._accepted, self._first, self._pieces, self._held, self._watch = accepted, first, pieces, held, watch
        self._unwritten: list[bytes] = []
        self._heard = asyncio.Event()
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sampling: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as deadline:
                sampling = asyncio.create_task(self._take_in(deadline))
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while self._unwritten or not sampling.done():
                    await self._heard.wait()
                    self._heard.clear()
                    body, self._unwritten = b"".join(self._unwritten), []
                    if body:
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.warning("a client did not read its stream; it is cut off")
        except asyncio.CancelledError:
            if not self._watch.client_gone:
                raise
            self._accepted.parts.metrics.cancelled.inc()
        finally:
            self._watch.end()
            if sampling is not None:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
            self._held.close()
            await self._pieces.aclose()

    async def _take_in(self, deadline: asyncio.Timeout) -> None:
        """Encode what comes, to the end; then the client has so long to read the rest."""
        try:
            async for event in self._events():
                self._unwritten.append(event)
                self._heard.set()
            self._held.close()
            deadline.reschedule(asyncio.get_running_loop().time() + READ_SECONDS)
        finally:
            asyncio.get_running_loop().call_soon(self._heard.set)

    async def _events(self) -> AsyncIterator[bytes]:
        accepted, ended = self._accepted, list[Answer]()
        writer = accepted.form.stream(accepted.context)
        for event in writer.begin():
            yield event
        try:
            async for piece in _with_first(self._first, self._pieces):
                if piece.whole is not None:
                    await accepted.record({piece.index: piece.whole})
                    ended.append(piece.whole)
                size = len(piece.tokens or ()) * (1 + (accepted.question.top_logprobs or 0))
                write = partial(_write, writer, piece)
                for event in await accepted.parts.work.do(accepted.key, size, write):
                    yield event
            closing = writer.end(ended)
        except ApiError as error:
            closing = writer.fail(error)
        except Exception:
            _log.exception("a stream failed")
            closing = writer.fail(ApiError(500, "the gateway failed; its log says of what"))
        for event in closing:
            yield event


def _write(writer: StreamWriter, piece: Piece) -> list[bytes]:
    return list(writer.write(piece))


async def _with_first(first: Piece, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in pieces:
        yield piece
