"""Whose run it is that no code server executes: a token that cannot repeat, and a lock that lives as long as its owner.

Host names, process ids and start times repeat: containers share a host's name and begin to count at one. The token is
random. While its process executes the run, a session of it holds an advisory lock on the token in Dagster's database;
when the process ends, wherever it ran, the server lets go of the lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from babylon_assets.orchestration.runtime.event_log import EventLog

#: On the runs of a command: the token, and the kernel and the namespace of process ids in which its owner has its id.
OWNER_TAG = f"{HIDDEN_TAG_PREFIX}babylon/owner"
#: On the runs that Dagster launched: the run, the kernel and namespace, and the process that executes it.
PLACE_TAG = f"{HIDDEN_TAG_PREFIX}babylon/place"
_SPACE = 0x6261_626F
_LOCK = text("SELECT pg_catalog.pg_advisory_lock(:space, pg_catalog.hashtext(:token))")
_UNLOCK = text("SELECT pg_catalog.pg_advisory_unlock(:space, pg_catalog.hashtext(:token))")
_HELD = text("""
    SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = CAST(CAST(:space AS int8) AS oid) AND objsubid = 2
        AND objid = CAST(CAST(pg_catalog.hashtext(:token) AS int8) & 4294967295 AS oid)
        AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))""")


#: The tokens of the runs that this process executes now.
_EXECUTED: set[str] = set()


@contextmanager
def owned(instance: dg.DagsterInstance) -> Iterator[dict[str, str]]:
    """The tags of a run that this process executes inside the block."""
    token = secrets.token_hex(16)
    tags = {OWNER_TAG: f"{token}:{this_kernel()}"}
    storage = instance.event_log_storage
    _EXECUTED.add(token)
    try:
        with _lock_held(storage, token) if isinstance(storage, EventLog) else nullcontext():
            yield tags
    finally:
        _EXECUTED.discard(token)


@contextmanager
def _lock_held(storage: EventLog, token: str) -> Iterator[None]:
    names = {"space": _SPACE, "token": token}
    with storage.engine.connect() as connection:
        connection.execute(_LOCK, names)
        try:
            yield
        finally:
            with suppress(OperationalError):  # the session, and the lock with it, ended with the server
                connection.execute(_UNLOCK, names)


def is_executed(tag: str) -> bool:
    """Whether this very process is executing the owner's run."""
    return tag.partition(":")[0] in _EXECUTED


def is_here(tag: str) -> bool:
    """Whether the owner's process id can be looked up by this process: the same kernel, the same namespace."""
    return tag.partition(":")[2] == this_kernel()


def is_alive(instance: dg.DagsterInstance, tag: str) -> bool:
    """Whether the owner of a tag still holds its lock; so of a storage that cannot be asked."""
    storage = instance.event_log_storage
    if not isinstance(storage, EventLog):
        return True
    with storage.engine.connect() as connection:
        names = {"space": _SPACE, "token": tag.partition(":")[0]}
        return bool(connection.execute(_HELD, names).scalar())


def this_kernel() -> str:
    """This boot of this kernel, and the namespace in which this process has its id; empty where /proc says neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
