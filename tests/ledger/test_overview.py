"""The state of the loop as it is read from our tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.token_counts import explain_early_end
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.overview import read_report
from babylon_assets.ledger.trajectories import replace_rows
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.report.summary import HOSTED_SILENT_AFTER, Cost, JobSummary, PolicySummary
from tests.ledger.values import CHAIN, LATER, LATEST, WINDOW, checkpoint, dataset, quarantined, record, root, sample
from tests.site.filled_ledger import EARLY_END

NOW = datetime(2026, 11, 5, 18, 30, tzinfo=UTC)
Conn = psycopg.Connection[Any]


def read(database: Database, chain: str = CHAIN) -> Any:
    with database.connect() as conn:
        return read_report(conn, chain, "here", NOW, HOURLY)


@pytest.fixture
def ledger(database: Database) -> None:
    """Two trained windows and a failed one, two promotions and a rollback, rows in quarantine, jobs."""
    frozen = dataset(sample(0), sample(1, trains_as="skip", skip_reason="held out", advantage=None))
    with database.connect() as conn:
        save_dataset(conn, frozen)
        made = [root(), checkpoint(1, WINDOW, frozen.id, metrics=EARLY_END), checkpoint(2, LATER, frozen.id)]
        for one in made:
            insert_checkpoint(conn, one)
        replace_rows(conn, WINDOW, [record(0), quarantined(0), quarantined(1), quarantined(2, reason="no endTime")])
        upsert_window(conn, WINDOW, status="trained", trajectories=1, dataset_id=frozen.id, reward_mean=0.2)
        upsert_window(conn, WINDOW, checkpoint_id=made[1].id, parent_id=made[0].id, reference={"oracle": 0.5})
        upsert_window(
            conn, LATER, status="trained", checkpoint_id=made[2].id, parent_id=made[1].id, dataset_id=frozen.id
        )
        conn.execute("UPDATE babylon_training.model_checkpoints SET rejected = 'worse' WHERE step = 2")
        upsert_window(conn, LATEST, status="failed", reason="SourceError: why")
        root_id, first, second = (each.id for each in made)
        promote(conn, CHAIN, "promotion", None, first, "gate", "first")
        promote(conn, CHAIN, "promotion", first, second, "gate", "better")
        promote(conn, CHAIN, "rollback", second, root_id, "ada", "worse")
        promote(conn, "other", "promotion", None, root_id, "gate", "not ours")
        conn.execute(
            "INSERT INTO babylon_training.checkpoint_evaluations "
            "(checkpoint_id, window_id, evaluation, version, baseline_id, value, low, high, results) "
            "VALUES (%s, %s, 'off_policy', '1', %s, 0.4, 0.3, 0.5, '{}'), (%s, %s, 'off_policy', '2', %s, "
            'NULL, NULL, NULL, \'{"refused": "too few"}\')',
            [second, LATEST, first] * 2,
        )


def promote(conn: Conn, *values: str | None) -> None:
    conn.execute(
        "INSERT INTO babylon_training.promotions (chain, kind, from_id, to_id, promoted_by, why) "
        "VALUES (%s, %s, %s, %s, %s, %s)",
        values,
    )


def attempt(conn: Conn, window: str, backend: str, *states: training_jobs.State, **columns: Any) -> None:
    job = training_jobs.start_job(conn, window=window, chain=CHAIN, backend=backend)
    for state in states:
        training_jobs.advance_job(conn, job.id, state, **(columns if state == states[-1] else {}))


def test_windows_name_their_policies_and_count_their_quarantine(database: Database, ledger: None) -> None:
    first, second, third = read(database).windows
    assert (first.id, first.state, first.policy, first.parent) == (WINDOW, "trained", f"{CHAIN}@1", f"{CHAIN}@0")
    assert (first.quarantined, first.quarantined_share, first.reward, first.references) == (
        3,
        0.75,
        0.2,
        {"oracle": 0.5},
    )
    assert (second.policy, second.quarantined) == (f"{CHAIN}@2", 0)
    assert (first.rejected, second.rejected) == (None, "worse")
    assert (first.trained_on, second.trained_on) == ("5,051 of 7,530", None)
    assert (first.ended_early, second.ended_early) == (explain_early_end(EARLY_END), "")
    assert (third.state, third.reason, third.policy) == ("failed", "SourceError: why", None)


def test_the_promoted_policy_is_what_the_newest_row_put_in_place(database: Database, ledger: None) -> None:
    report = read(database)
    assert report.head == PolicySummary(name=f"{CHAIN}@1", window=WINDOW, made_at=report.head.made_at)
    assert (report.promoted.name, report.promoted.window) == (f"{CHAIN}@0", None)
    told = [(row.kind, row.before, row.after, row.window, row.by, row.why) for row in report.promotions]
    assert told == [
        ("rollback", f"{CHAIN}@2", f"{CHAIN}@0", None, "ada", "worse"),
        ("promotion", f"{CHAIN}@1", f"{CHAIN}@2", LATER, "gate", "better"),
        ("promotion", None, f"{CHAIN}@1", WINDOW, "gate", "first"),
    ]


def test_quarantine_is_counted_by_reason_with_an_example(database: Database, ledger: None) -> None:
    rows = [(row.reason, row.rows, row.windows, row.trajectory, row.place) for row in read(database).quarantine]
    assert rows == [("not JSON", 2, 1, "q0", "byte 7"), ("no endTime", 1, 1, "q2", "byte 7")]


def test_samples_are_summed_over_the_windows_datasets(database: Database, ledger: None) -> None:
    samples = {name: number for name, number in read(database).samples.items() if number}
    assert samples == {"policy_gradient": 2, "skip: held out": 2}


def test_evaluations_name_both_policies_and_the_window_that_they_were_measured_on(
    database: Database, ledger: None
) -> None:
    [made] = read(database).evaluations  # and none without an estimate
    assert (made.policy, made.baseline, made.value, made.low, made.high) == (f"{CHAIN}@2", f"{CHAIN}@1", 0.4, 0.3, 0.5)
    assert made.window == LATEST  # and not the window that the policy was trained on


def test_jobs_that_run_and_windows_whose_last_job_failed(database: Database, ledger: None) -> None:
    with database.connect() as conn:
        attempt(conn, WINDOW, "embedded", "failed", reason="a trained window's early failure is over")
        attempt(conn, LATEST, "serverless", "skipped", reason="nothing")
        attempt(conn, LATEST, "serverless", "failed", reason="the daily cap is reached")
        attempt(conn, LATEST, "serverless", "submitted")
    report = read(database)
    assert [(job.state, job.window) for job in report.running] == [("submitted", LATEST)]
    assert report.running[0].silent_after == HOSTED_SILENT_AFTER
    assert report.failed == []
    with database.connect() as conn:
        conn.execute(
            "UPDATE babylon_training.training_jobs SET state = 'failed', reason = 'gone' WHERE state = 'submitted'"
        )
    [failed] = read(database).failed
    assert isinstance(failed, JobSummary)
    assert (failed.window, failed.reason) == (LATEST, "gone")


def test_what_training_used_is_summed_by_backend(database: Database, ledger: None) -> None:
    with database.connect() as conn:
        attempt(conn, WINDOW, "serverless", "trained", usage={"seconds": 10.5, "tokens": 900}, cost_usd=1.25)
        attempt(conn, LATER, "serverless", "trained", usage={"seconds": 2, "tokens": 100}, cost_usd=0.5)
        attempt(conn, LATEST, "embedded", "trained", usage={"seconds": 3})
        yesterday = datetime.now(UTC) - timedelta(days=1, minutes=1)
        conn.execute(
            "UPDATE babylon_training.training_jobs SET created_at = %s WHERE window_id = %s", [yesterday, WINDOW]
        )
    assert read(database).costs == [
        Cost(backend="serverless", jobs=2, seconds=12.5, tokens=1000, usd=1.75, usd_today=0.5),
        Cost(backend="embedded", jobs=1, seconds=3.0, tokens=0, usd=0.0, usd_today=0.0),
    ]


def test_an_empty_ledger_and_another_chain_have_a_report(database: Database) -> None:
    empty = read(database)
    assert (empty.windows, empty.head, empty.promoted, empty.costs) == ([], None, None, [])
    assert read(database, "other").promotions == []


def test_it_is_read_as_of_one_moment_and_writes_nothing(database: Database) -> None:
    with database.connect() as conn:
        read_report(conn, CHAIN, "here", NOW, HOURLY)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            upsert_window(conn, WINDOW, status="open")
