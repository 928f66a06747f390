"""Connections of the gateway: what a client may send, how long it may take, and how many it may hold.

uvicorn's protocol over httptools knows no such bounds. Deadlines are looked at once a second, for all connections
together; what is beyond a bound is refused before the application hears of it, and costs no more than reading it.
"""

from __future__ import annotations

import logging
import resource
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_network
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from babylon_assets.serving.http.protocol import ApiError

#: Open files that are asked of the system, and those that are kept for the database, the spool and the model's files.
OPEN_FILES, KEPT_FILES = 65_536, 256
#: Requests that a client may send ahead on one connection.
PIPELINED = 8
#: Headers of one request.
MOST_HEADERS = 100
#: How long a refused client may go on sending: closing at once would take the refusal from it.
LINGER_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections may take.

    Attributes:
        body, head: bytes of a request's body; of its request line and headers.
        head_seconds: from the first byte, or from connecting, to the end of the headers.
        body_seconds: from there to the end of the body.
        write_seconds: how long what was written may wait for a client that does not read.
        address: connections of one address; of an IPv6 network of 64 bits.
        total: connections of all addresses.
    """

    body: int
    address: int
    total: int
    head: int = 32_768
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0


def raise_open_files() -> None:
    """Allow this process as many open files as the system lets it have, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """How many connections the limit of open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (OPEN_FILES if soft == resource.RLIM_INFINITY else soft) - KEPT_FILES)


class Connections:
    """All connections that are open.

    Attributes:
        refused: how many were refused, by HTTP status; those that were closed for a newer one are under 408.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.refused: Counter[int] = Counter()
        self._by_address: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Connection]:
        for connections in self._by_address.values():
            yield from connections

    def admit(self, connection: Connection) -> bool:
        """Take a new connection; where there are too many, in the place of one on which no request is complete."""
        same = self._by_address[connection.address]
        if len(same) >= self.limits.address and not _close_one_of(same):
            return False
        if self._count >= self.limits.total and not _close_one_of(self):
            _log.warning("all %d connections are in use; a new one is refused", self._count)
            return False
        same[connection] = None
        self._count += 1
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        same = self._by_address.get(connection.address, {})
        if connection in same:
            del same[connection]
            self._count -= 1
        if not same:
            self._by_address.pop(connection.address, None)


def _close_one_of(connections: Iterable[Connection]) -> bool:
    """Close the one that has had nothing to be answered for longest; False where all are being answered."""
    idle = [connection for connection in connections if not connection.is_answered]
    if not idle:
        return False
    min(idle, key=lambda connection: (connection.requests > 0, connection.since)).drop()
    return True


class _Refusal(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Connection(HttpToolsProtocol):
    """One connection.

    Attributes:
        requests: how many whole requests came.
        since: when it last began to wait for one, on the event loop's clock.
    """

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections, self._limits = connections, connections.limits
        self.address = ""
        self.requests = 0
        self.since = self.loop.time()
        self._due: float | None = self.since + self._limits.head_seconds
        self._unwritten_since: float | None = None
        self._deaf = self._in_head = self._within = False
        self._received = self._head = self._headers = self._body = self._begun = 0
        self._refusal: _Refusal | None = None

    @property
    def is_answered(self) -> bool:
        """Whether a whole request is being answered, or its answer not written yet."""
        if self._deaf:
            return False
        under_way = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        return under_way or bool(self.pipeline) or self.transport.get_write_buffer_size() > 0

    def drop(self) -> None:
        """Close it for a newer one."""
        self._connections.refused[HTTPStatus.REQUEST_TIMEOUT] += 1
        self._connections.remove(self)
        self.transport.abort()

    def look(self) -> None:
        """End it if its time is over."""
        now = self.loop.time()
        if not self.transport.get_write_buffer_size():
            self._unwritten_since = None
        elif self._unwritten_since is None:
            self._unwritten_since = now
        elif now - self._unwritten_since > self._limits.write_seconds:
            self.transport.abort()
            return
        if self._due is None or now < self._due or self.is_answered:
            return
        if self._deaf:
            self.transport.abort()
        else:
            self._refuse(_Refusal(408, "the request did not come in time"))

    def shutdown(self) -> None:
        """The server ends: what is being answered is answered, half a request is not waited for."""
        if self.is_answered:
            super().shutdown()
        else:
            self.transport.abort()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = _network(self.client[0] if self.client else "")
        if not self._connections.admit(self):
            self._connections.refused[HTTPStatus.SERVICE_UNAVAILABLE] += 1
            transport.write(_response(_Refusal(503, "there are too many connections")))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return
        was_within, self._begun = self._within, 0
        if self._due is None and not self.is_answered:
            self._due = self.loop.time() + self._limits.head_seconds
        super().data_received(data)
        if not self._begun:
            self._received += len(data)
        else:  # where in it a second message began is not known
            self._received = len(data) if self._begun == 1 and not was_within else 0
        if self._in_head and self._received > self._limits.head:
            self._refuse(_Refusal(431, f"the headers may have {self._limits.head} bytes"))
        elif self._within and self._received > self._limits.head + 2 * self._limits.body:
            self._refuse(_too_long(self._limits))

    def send_400_response(self, msg: str) -> None:
        """What the parser stopped at, which may be a bound of ours."""
        self._refuse(self._refusal or _Refusal(400, "this is no HTTP request"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._within = True
        self._head = self._headers = self._body = 0
        self._begun += 1
        self._due = self.loop.time() + self._limits.head_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value)
        self._headers += 1
        if self._head > self._limits.head or self._headers > MOST_HEADERS:
            self._stop(_Refusal(431, f"the headers may be {MOST_HEADERS} and have {self._limits.head} bytes"))
        if name.lower() == b"content-length" and int(value) > self._limits.body:
            self._stop(_too_long(self._limits))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._due = self.loop.time() + self._limits.body_seconds
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self._body > self._limits.body:
            self._stop(_too_long(self._limits))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._within = False
        self.requests += 1
        self._due = None

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def _stop(self, refusal: _Refusal) -> None:
        """Make the parser stop; it then asks for the response."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, refusal: _Refusal) -> None:
        """Say why, then hear nothing more; an answer that is under way is broken off."""
        if self._deaf:
            return
        self._connections.refused[refusal.status] += 1
        cycle, started = self.cycle, False
        if cycle is not None:
            started = cycle.response_started and not (cycle.response_complete and self._in_head)
            cycle.disconnected = True
            cycle.message_event.set()
        if started or self.transport.is_closing():
            self.transport.abort()
            return
        self.transport.write(_response(refusal))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deaf, self._due = True, self.loop.time() + LINGER_SECONDS


def _too_long(limits: ConnectionLimits) -> _Refusal:
    return _Refusal(413, f"a request may have {limits.body} bytes")


def _response(refusal: _Refusal) -> bytes:
    body = ApiError(refusal.status, str(refusal), code="refused").body()
    phrase = HTTPStatus(refusal.status).phrase
    head = f"HTTP/1.1 {refusal.status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


def _network(address: str) -> str:
    return str(ip_network((address, 64), strict=False)) if ":" in address else address
