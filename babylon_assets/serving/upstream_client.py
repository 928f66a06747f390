"""Asks a server that speaks OpenAI's API, over connections that are kept, and says in our errors what it failed of.

A question that met no server, or one that was passing, is asked once more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from babylon_assets.config.network import proxy_for
from babylon_assets.serving.http.protocol import ApiError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

T = TypeVar("T")
#: Answers of a server that is busy for the moment, and how long it is left alone before it is asked again.
PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
SECONDS_BETWEEN = 0.5
#: Of a refusal more is not read: it is a sentence.
MOST_REFUSAL_BYTES = 2**16
#: Of an answer, and of a line of a stream; 32,000 tokens with 20 alternatives each fit.
MOST_REPLY_BYTES = 2**26
MOST_LINE_BYTES = 2**23
#: Nobody waits longer for the end of a stream, whatever goes on coming.
LONGEST_SECONDS = 3600.0


class _Refusal(msgspec.Struct):
    message: str | None = None
    param: Any = None
    code: Any = None  # OpenAI's is a text, vLLM's a number


class _RefusalBody(msgspec.Struct):
    error: _Refusal


class Patience:
    """How long a stream may go on without a part of an answer, whatever else comes: comments, blanks, empty chunks.

    Only the time in which the server is waited for counts, not that in which a client takes what came.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds

    def renew(self) -> None:
        """A part of the answer has come."""
        self._left = self._seconds

    async def wait_for(self, coming: Awaitable[T]) -> T:
        """What comes. Raises TimeoutError when too long nothing of an answer came."""
        now = asyncio.get_running_loop().time
        began = now()
        async with asyncio.timeout(self._left):
            result = await coming
        self._left -= now() - began
        return result


class UpstreamClient:
    """A server's chat completions.

    Args:
        url: with `/v1`.
        seconds: how long it may take to begin an answer, to give one whole, and to give the next part of a stream.
    """

    def __init__(self, url: str, key: str, *, seconds: float) -> None:
        self._url, self._seconds = f"{url.rstrip('/')}/chat/completions", seconds
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._proxy = proxy_for(self._url)
        self._session: ClientSession | None = None

    @asynccontextmanager
    async def ask(self, request: dict[str, Any]) -> AsyncGenerator[ClientResponse]:
        """What the server answers with status 200; its body is still to be read.

        Raises:
            ApiError: it refuses, does not answer, or breaks off while the body is read.
        """
        body = msgspec.json.encode(request)
        with _translated_errors():
            response = await self._post(body)
            try:
                if response.status != 200:
                    raise await _refusal(response)
                yield response
            finally:
                response.close()  # of a body that was read to its end the connection is kept

    async def _post(self, body: bytes) -> ClientResponse:
        from aiohttp import ClientConnectionError, ServerTimeoutError

        try:
            response = await self._send(body)
            if response.status not in PASSING:
                return response
            response.close()
        except ServerTimeoutError:
            raise
        except ClientConnectionError:
            pass  # such as a kept connection that the server had closed
        await asyncio.sleep(SECONDS_BETWEEN)
        return await self._send(body)

    async def _send(self, body: bytes) -> ClientResponse:
        if self._session is None:
            self._session = self._begun()
        async with asyncio.timeout(self._seconds):
            return await self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False, proxy=self._proxy
            )

    def _begun(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        seconds = self._seconds
        timeout = ClientTimeout(total=LONGEST_SECONDS, connect=seconds, sock_connect=seconds, sock_read=seconds)
        return ClientSession(
            connector=TCPConnector(limit=0), timeout=timeout
        )  # no `trust_env`: it takes a netrc's login for ours

    async def read_reply(self, response: ClientResponse) -> bytes:
        """The whole body, to be called while the response is open.

        Raises:
            ApiError: it is too large.
            TimeoutError: it did not come in time.
        """
        async with asyncio.timeout(self._seconds):
            return b"".join([piece async for piece in _bounded(response)])

    def patience(self) -> Patience:
        """For one stream."""
        return Patience(self._seconds)

    async def read_lines(self, response: ClientResponse, patience: Patience) -> AsyncIterator[str]:
        """The lines of a body as they come, without their ends.

        Raises:
            ApiError: one of them, or all of them, are too large.
            TimeoutError: the patience is at an end.
            UnicodeDecodeError: it is no text.
        """
        rest, pieces = b"", _bounded(response)
        while (piece := await patience.wait_for(anext(pieces, None))) is not None:
            lines = (rest + piece).splitlines(keepends=True)
            rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
            for line in lines:
                yield line.rstrip(b"\r\n").decode()
            if len(rest) > MOST_LINE_BYTES:
                raise _too_large()
        if rest:
            yield rest.rstrip(b"\r\n").decode()

    async def close(self) -> None:
        """Close the connections, on the event loop that asked."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _bounded(response: ClientResponse) -> AsyncIterator[bytes]:
    """A body as it comes, unpacked, unless it is endless."""
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MOST_REPLY_BYTES:
            raise _too_large()
        yield piece


def _too_large() -> ApiError:
    return ApiError(502, "the server behind the gateway gave too large an answer", code="upstream")


async def _refusal(response: ClientResponse) -> ApiError:
    """The server's refusal as ours. Our key being refused is not the client's fault, nor is being sent elsewhere."""
    status = response.status
    if status in (401, 403) or not 400 <= status < 500:
        return ApiError(502, f"the server behind the gateway answered {status}", code="upstream")
    try:
        reason = msgspec.json.decode(await response.content.read(MOST_REFUSAL_BYTES), type=_RefusalBody).error
    except msgspec.MsgspecError:
        reason = _Refusal()
    after = response.headers.get("Retry-After", "")
    retry_after = int(after) if re.fullmatch("[0-9]{1,5}", after) else 1 if status == 429 else None
    message = reason.message or f"the server behind the gateway refuses this ({status})"
    param, code = (value if isinstance(value, str) else None for value in (reason.param, reason.code))
    return ApiError(status, message, param=param, code=code, retry_after=retry_after)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """What asking the server may fail of, as what the client is told."""
    from aiohttp import ClientError

    try:
        yield
    except TimeoutError as error:
        raise ApiError(504, "the server behind the gateway did not answer in time", code="upstream") from error
    except ClientError as error:
        raise ApiError(502, "the server behind the gateway does not answer", code="upstream") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ApiError(502, "the server behind the gateway gave no answer that can be read", code="upstream") from error
