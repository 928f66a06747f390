"""Waiting for somebody else: it says for whom and for what, sleeps in between, and ends when it is told to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from psycopg import Connection

_log = logging.getLogger(__name__)

#: Seconds until a wait is said, and between two times that it is said.
PATIENCE, EVERY = 1.0, 60.0
_LONGEST_PAUSE = 0.5
#: The SQL of the second half of a lock's key, where that is a name.
HASHED = "hashtext(%s)"
_HOLDER = """
    SELECT concat_ws(' ', 'session', a.pid, 'of', nullif(a.application_name, ''), 'from', coalesce(
        host(a.client_addr), 'this machine'), 'since', to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS'))
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = (%s::int8 & 4294967295)::oid AND l.objid = ({}::int8 & 4294967295)::oid LIMIT 1"""


#: What this process waits for now, and since when on the monotonic clock; the newest last.
_current: dict[object, tuple[str, float]] = {}


def current_wait() -> tuple[str, float] | None:
    """What this process waits for now, as a clause after `waiting for`, and since when on the monotonic clock."""
    return next(reversed(list(_current.values())), None)


@contextmanager
def noting_wait(words: str, since: float) -> Iterator[None]:
    """Let `current_wait` know of a wait while it lasts."""
    key = object()
    _current[key] = (words, since)
    try:
        yield
    finally:
        del _current[key]


def tell_wait(words: str) -> None:
    """Say in the log for whom and for what one waits; `babylon` shows it as a plain sentence."""
    _log.warning("waiting for %s", words)


def wait_until(done: Callable[[], bool], describe: Callable[[], str]) -> None:
    """Ask again and again, with a pause between, until it is done; a signal ends the wait as it ends any sleep.

    Args:
        describe: for whom and for what one waits, as a clause after `waiting for`.
    """
    began, pause = time.monotonic(), 0.02
    said_at = began + PATIENCE
    with ExitStack() as noted:
        while not done():
            if time.monotonic() >= said_at:
                words = describe()
                tell_wait(words)
                noted.close()
                noted.enter_context(noting_wait(words, began))
                said_at = time.monotonic() + EVERY
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)


def wait_for_lock(conn: Connection[Any], function: str, key: str, arguments: tuple[int, str | int], what: str) -> None:
    """Take an advisory lock, waiting for whoever holds it.

    Args:
        function: that tries it, such as `pg_try_advisory_lock`.
        key: the SQL of the second half of the lock's key, with one placeholder.
        arguments: the first half, and what `key` is made of.
        what: one waits for, in words.
    """
    asked = f"SELECT {function}(%s, {key})".encode()

    def taken() -> bool:
        row = conn.execute(asked, arguments).fetchone()
        return row is not None and bool(row[0])

    wait_until(taken, lambda: f"{what}, which {lock_holder(conn, key, arguments)} holds")


def wait_for_transaction_lock(conn: Connection[Any], name: tuple[int, str], what: str) -> None:
    """Take an advisory lock that has a name, to the end of the caller's transaction."""
    wait_for_lock(conn, "pg_try_advisory_xact_lock", HASHED, name, what)


def lock_holder(conn: Connection[Any], key: str, arguments: tuple[int, str | int]) -> str:
    """Who holds an advisory lock, as far as the server says."""
    row = conn.execute(_HOLDER.format(key).encode(), arguments).fetchone()
    return str(row[0]) if row is not None else "another session"
