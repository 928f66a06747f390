"""Recording answers: to the spool before the answer leaves, from there to `inference_calls` by a thread of its own.

None is lost: a spool file is removed only after the transaction that wrote it was committed. None is written twice: a
file that was written by a process that died before removing it is read again, and its calls are there already by their
ids. Nothing here slows or breaks an answer: with the database down the files stay, with the disk full too records wait
in memory, up to a bound, and what is beyond that is counted and reported as lost.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import Connection

from babylon_assets.domain.errors import BabylonError
from babylon_assets.ledger.inference_calls import InferenceCall, add_calls
from babylon_assets.serving import spool
from babylon_assets.serving.awaited_database import Ledger
from babylon_assets.serving.lasting_thread import LastingThread
from babylon_assets.serving.spool import Spool

#: How often the spool is emptied into the database, and how long it is left alone when the database is down.
EVERY_SECONDS, DOWN_SECONDS = 0.5, 1.0
#: Calls in one transaction.
TOGETHER = 1000
#: Bytes of calls that are held in memory while nothing can be written to disk, and that are then written in one go.
HELD_BYTES, WRITTEN_BYTES = 64_000_000, 1_000_000

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
#: What no later try would change.
_UNFIT = (psycopg.DataError, psycopg.IntegrityError, msgspec.MsgspecError, ValueError, OverflowError)
_decode = msgspec.msgpack.Decoder(InferenceCall).decode


class Recorder:
    """Takes calls from the threads that answer; one of its own writes them.

    Args:
        folder: of the spool.
    """

    def __init__(self, database: Ledger, folder: Path) -> None:
        self._database = database
        self._spool = Spool(folder)
        self._held: deque[bytes] = deque()
        self._held_bytes = self._lost_told = 0
        self._taking = threading.Lock()
        self._conn: Connection[Any] | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._turn = threading.Condition()
        self._asked = self._done = 0
        self.taken = self.written = self.lost = self.refused = 0
        self.database_up = True
        self.thread = LastingThread(self._run, "recorder")
        self.thread.start()

    def record(self, calls: Sequence[InferenceCall]) -> None:
        """Take calls; when this returns, a kill of this process loses none of them. Never raises for a full disk."""
        records = [_encode(call) for call in calls]
        with self._taking:
            self.taken += len(records)
            if not self._held:
                try:
                    self._spool.append(records)
                    return
                except OSError as error:
                    _log.error("the spool cannot be written, calls wait in memory: %s", error)
            self._hold(records)

    def _hold(self, records: Sequence[bytes]) -> None:
        for record in records:
            if self._held_bytes + len(record) <= HELD_BYTES:
                self._held.append(record)
                self._held_bytes += len(record)
            else:
                self.lost += 1

    def _store_held(self) -> None:
        """Write what waits in memory, a part at a time; the disk is tried once until it takes something again."""
        while self._held:
            with self._taking:
                records = list(_first(WRITTEN_BYTES, self._held))
                try:
                    self._spool.append(records)
                except OSError as error:
                    if self.lost > self._lost_told:
                        _log.error("the spool cannot be written (%s): %d calls are lost", error, self.lost)
                        self._lost_told = self.lost
                    return
                for record in records:
                    self._held.popleft()
                    self._held_bytes -= len(record)

    def flush(self, seconds: float) -> bool:
        """Wait until everything taken so far is in the database; False when that took longer."""
        with self._turn:
            self._asked += 1
            mine = self._asked
        self._wake.set()
        with self._turn:
            return self._turn.wait_for(lambda: self._done >= mine, seconds)

    def waiting(self) -> int:
        """Bytes in the spool."""
        return self._spool.size()

    def close(self, seconds: float = 5.0) -> None:
        """Write what is there, for at most so long; the rest is on disk for the next process."""
        if self.thread.is_alive():
            self.flush(seconds)
        self._closing.set()
        self._wake.set()
        self.thread.join(DOWN_SECONDS + seconds)
        if self._conn is not None:
            self._conn.close()
        self._spool.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(EVERY_SECONDS if self.database_up else DOWN_SECONDS)
            self._wake.clear()
            with self._turn:
                wake = self._asked
            try:
                self._store_held()
                for path in self._spool.sealed():
                    self._write(path)
            except (psycopg.Error, BabylonError, OSError) as error:
                self._up(False, error)
                continue
            self._up(True)
            with self._turn:
                self._done = wake
                self._turn.notify_all()

    def _up(self, up: bool, error: Exception | None = None) -> None:
        if self.database_up and not up:
            _log.warning("calls cannot be written and wait on disk: %s", error)
        if up and not self.database_up:
            _log.info("calls are written again")
        if not up and self._conn is not None:
            self._conn.close()
            self._conn = None
        self.database_up = up

    def _write(self, path: Path) -> None:
        """A spool file into the database, then away with it."""
        count = size = 0
        for records in _by(TOGETHER, spool.read(path)):
            try:
                self._add(records)
            except _UNFIT:
                self._write_singly(records)
            count += len(records)
            size += spool.size_of(records)
        if size == path.stat().st_size:
            self._spool.remove(path)
        else:  # at most the record of an answer that a killed process never gave, or else the disk's doing
            kept = self._spool.set_aside(path)
            _log.warning("%s ended in something that is no record; what was before it is written", kept)
        self.written += count

    def _add(self, records: Sequence[bytes]) -> None:
        with self._connection().transaction():
            add_calls(self._connection(), [_decode(record) for record in records])

    def _write_singly(self, records: Sequence[bytes]) -> None:
        """What the database will not take is set aside; the others are written."""
        for record in records:
            try:
                self._add([record])
            except _UNFIT as error:
                self.refused += 1
                kept = self._spool.refuse(record)
                _log.error("a call was refused by the database and is kept in %s: %s", kept, error)

    def _connection(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = self._database.connect_autocommit()
        return self._conn


def _first(size: int, records: Iterable[bytes]) -> Iterator[bytes]:
    """The first records, up to the one that passes so many bytes."""
    for record in records:
        yield record
        size -= len(record)
        if size < 0:
            return


def _by(count: int, records: Iterator[bytes]) -> Iterator[list[bytes]]:
    while several := list(islice(records, count)):
        yield several
