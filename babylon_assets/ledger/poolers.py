"""Connection poolers between us and the server, known by how they behave, whatever the URL says.

Locks, the search path and the time zone belong to a session. A pooler in transaction mode gives each transaction to
any session of its own: two holders then have the lock of one chain at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from psycopg import Connection, errors

#: Sessions that are held at once while the pooler is asked; several of its processes may stand behind one address.
PROBES = 4


def is_behind_pooler(conn: Connection[Any]) -> bool:
    """Whether the process that the handshake named is not the one that answers; `conn` is in autocommit."""
    return _backend(conn) != conn.info.backend_pid


def pools_transactions(connect: Callable[[], Connection[Any]]) -> bool:
    """Whether a session changes between two statements, or is shared by two connections that are both open.

    Args:
        connect: opens a connection in autocommit.
    """
    with ExitStack() as held:
        first = held.enter_context(closing(connect()))
        before, others = _backend(first), set()
        for _ in range(PROBES):
            other = held.enter_context(closing(connect()))
            try:
                other.execute("BEGIN")
            except errors.ProtocolViolation:  # a pooler of single statements knows no transactions
                return True
            others.add(_backend(other))
        return before in others or _backend(first) != before


def _backend(conn: Connection[Any]) -> int:
    row = conn.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])
