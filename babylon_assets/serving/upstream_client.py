"""Asks a server that speaks OpenAI's API, over connections that are kept, and says in our errors what it failed of.

A question that met no server, or one that was passing, is asked once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from babylon_assets.config.network import is_loopback
from babylon_assets.serving.http.protocol import ApiError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

#: Answers of a server that is busy for the moment, and how long it is left alone before it is asked again.
PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
SECONDS_BETWEEN = 0.5
#: Of a refusal more is not read: it is a sentence.
MOST_REFUSAL_BYTES = 2**16


class _Refusal(msgspec.Struct):
    message: str | None = None
    param: str | None = None
    code: str | None = None


class _RefusalBody(msgspec.Struct):
    error: _Refusal


class UpstreamClient:
    """A server's chat completions.

    Args:
        url: with `/v1`.
        seconds: how long it may take to connect, and how long nothing may come.
    """

    def __init__(self, url: str, key: str, *, seconds: float) -> None:
        self._url, self._seconds = f"{url.rstrip('/')}/chat/completions", seconds
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
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
        return await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)

    def _begun(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        seconds = self._seconds
        timeout = ClientTimeout(total=None, connect=seconds, sock_connect=seconds, sock_read=seconds)
        return ClientSession(connector=TCPConnector(limit=0), timeout=timeout, trust_env=not is_loopback(self._url))

    async def close(self) -> None:
        """Close the connections, on the event loop that asked."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def read_lines(response: ClientResponse) -> AsyncIterator[str]:
    """The lines of a body as they come, without their ends.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    rest = b""
    async for piece in response.content.iter_any():
        lines = (rest + piece).splitlines(keepends=True)
        rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
        for line in lines:
            yield line.rstrip(b"\r\n").decode()
    if rest:
        yield rest.rstrip(b"\r\n").decode()


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
    retry_after = int(after) if after.isdecimal() else 1 if status == 429 else None
    message = reason.message or f"the server behind the gateway refuses this ({status})"
    return ApiError(status, message, param=reason.param, code=reason.code, retry_after=retry_after)


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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(502, "the server behind the gateway gave no answer that can be read", code="upstream") from error
