"""Signs of life: given while an attempt trains, not after it has ended, and again after the server was away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.training_jobs import Job
from babylon_assets.training.heartbeat import beating

WINDOW, CHAIN = "2026-11-05T14:00", "babylon-agent"


@pytest.fixture
def job(database: Database) -> Job:
    with database.connect() as conn:
        started = training_jobs.start_job(conn, window=WINDOW, chain=CHAIN, backend="embedded")
        return training_jobs.advance_job(conn, started.id, "training")


def now(database: Database, job: Job) -> Job:
    with database.connect() as conn:
        return training_jobs.get_job(conn, job.id)


def until(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return happened()


def test_an_attempt_gives_signs_of_life_while_it_trains_and_then_no_more(database: Database, job: Job) -> None:
    with beating(database, job.id, every=0.02):
        assert until(lambda: now(database, job).heartbeat > job.heartbeat)
    last = now(database, job).heartbeat
    time.sleep(0.1)
    assert now(database, job).heartbeat == last


def test_an_attempt_that_has_ended_stays_as_it_is(database: Database, job: Job) -> None:
    with database.connect() as conn:
        ended = training_jobs.advance_job(conn, job.id, "failed", reason="so it went")
        training_jobs.beat(conn, job.id)
    assert now(database, job) == ended


def test_a_server_that_is_away_for_a_while_does_not_end_it(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = [True]
    connect = Database.connect

    def connect_or_not(self: Database) -> object:
        if away[0]:
            raise DatabaseUnavailable("the server does not answer")
        return connect(self)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "connect", connect_or_not)
        with beating(replace(database), job.id, every=0.02):
            assert until(lambda: "no sign of life" in caplog.text)
            away[0] = False
            assert until(lambda: now(database, job).heartbeat > job.heartbeat)


def test_an_attempt_whose_process_died_is_known_and_says_when_it_lived(database: Database, job: Job) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE babylon_training.training_jobs SET heartbeat = '2026-11-05 15:04:05+00'")
        ((found, ago),) = training_jobs.running_jobs(conn, CHAIN)
        assert (found.id, ago > training_jobs.SILENT_SECONDS) == (job.id, True)
        training_jobs.fail_orphaned_jobs(conn, CHAIN)
        assert training_jobs.running_jobs(conn, CHAIN) == []
    assert "its last sign of life was at 2026-11-05 15:04:05 UTC" in (now(database, job).reason or "")
