"""Signs of life of a training attempt while it trains, written by a thread beside it.

A process that dies leaves a row that says `training` and a heartbeat that stands still: by that it is known, before
the next run takes the chain's lock and fails the attempt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from babylon_assets.domain.errors import BabylonError
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.database import Database

logger = logging.getLogger(__name__)

#: Seconds between two signs of life; `ledger.training_jobs.SILENT_SECONDS` is six of them.
EVERY_SECONDS = 10.0


@contextmanager
def beating(database: Database, job_id: int, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Give a sign of life for an attempt every so many seconds, until the block ends.

    The first one comes after `every` seconds: entering the state `training` was one as well. Each has a connection of
    its own, so that a server that was restarted is found again; one that cannot be written is logged and not missed.
    """
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(database, job_id, every, over), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=every)


def _beat(database: Database, job_id: int, every: float, over: threading.Event) -> None:
    while not over.wait(every):
        try:
            with database.connect() as conn:
                training_jobs.beat(conn, job_id)
        except (BabylonError, psycopg.Error) as error:
            logger.warning("no sign of life of training job %s could be written: %s", job_id, error)
