"""A chain is a line: one root, one child of each checkpoint, one checkpoint of each window; attempts never go back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.errors import ChainConflict, CorruptLedger
from babylon_assets.ledger import checkpoints, training_jobs
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from tests.ledger.values import CHAIN, LATER, LATEST, WINDOW, checkpoint, dataset, root, sample

Conn = psycopg.Connection[Any]


@pytest.fixture
def dataset_id(database: Database) -> str:
    kept = dataset(sample(0))
    with database.connect() as conn:
        save_dataset(conn, kept)
        checkpoints.ensure_root(conn, root())
    return kept.id


def test_checkpoints_come_back_as_they_were(conn: Conn, dataset_id: str) -> None:
    first, second = checkpoint(1, WINDOW, dataset_id), checkpoint(2, LATER, dataset_id, metrics={"loss": None})
    for made in (first, second):
        checkpoints.insert_checkpoint(conn, made)
    assert checkpoints.chain(conn, CHAIN) == [root(), first, second]
    assert checkpoints.head(conn, CHAIN) == second
    assert checkpoints.by_window(conn, CHAIN, WINDOW) == first
    assert checkpoints.get(conn, first.id) == first
    assert checkpoints.head(conn, "another") is None
    assert checkpoints.by_window(conn, CHAIN, LATEST) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 2, "window_id": LATER},
        {"parent_id": f"{CHAIN}-1", "window_id": LATER},
        {"parent_id": f"{CHAIN}-1", "step": 2},
        {"id": f"{CHAIN}-1", "parent_id": "other-0", "step": 2, "window_id": LATER},
    ],
    ids=["same parent", "same step", "same window", "same id"],
)
def test_a_second_checkpoint_in_the_same_place_is_refused(conn: Conn, dataset_id: str, changes: dict[str, Any]) -> None:
    first = checkpoint(1, WINDOW, dataset_id)
    checkpoints.insert_checkpoint(conn, first)
    checkpoints.ensure_root(conn, root("other"))
    conn.commit()
    with pytest.raises(ChainConflict, match="nothing was added"):
        checkpoints.insert_checkpoint(conn, replace(first, **{"id": "rival", **changes}))
    assert checkpoints.chain(conn, CHAIN) == [root(), first]  # and the transaction is still usable


def test_of_many_extending_one_head_at_once_one_wins(database: Database, dataset_id: str) -> None:
    def extend(number: int) -> bool:
        try:
            with database.connect() as conn:
                checkpoints.insert_checkpoint(conn, checkpoint(1, WINDOW, dataset_id, id=f"rival-{number}"))
        except ChainConflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(extend, range(6))) == 1


def test_another_chain_has_its_own_line(conn: Conn, dataset_id: str) -> None:
    other = checkpoint(1, WINDOW, dataset_id, chain="other", id="other-1", parent_id="other-0")
    checkpoints.ensure_root(conn, root("other"))
    checkpoints.insert_checkpoint(conn, other)
    checkpoints.insert_checkpoint(conn, checkpoint(1, WINDOW, dataset_id))
    assert checkpoints.head(conn, "other") == other


def test_a_checkpoint_needs_a_parent_and_a_dataset_that_are_kept(conn: Conn, dataset_id: str) -> None:
    for lost in (checkpoint(1, WINDOW, "no such dataset"), checkpoint(1, WINDOW, dataset_id, parent_id="no such")):
        with pytest.raises(CorruptLedger, match="is not present"):
            checkpoints.insert_checkpoint(conn, lost)


def test_a_chain_has_one_root_whoever_begins_it(conn: Conn, dataset_id: str) -> None:
    late = root(id="late", weights_sha256="other weights")
    assert checkpoints.ensure_root(conn, late) == root()
    assert checkpoints.chain(conn, CHAIN) == [root()]


def start(conn: Conn, window: str = WINDOW) -> training_jobs.Job:
    return training_jobs.start_job(
        conn,
        window=window,
        chain=CHAIN,
        parent_id=f"{CHAIN}-0",
        dataset_id="d",
        dagster_run_id="run",
        backend="embedded",
    )


def test_an_attempt_goes_its_way(conn: Conn) -> None:
    job = start(conn)
    assert (job.state, job.window_id, job.dagster_run_id, job.backend) == ("prepared", WINDOW, "run", "embedded")
    conn.commit()
    assert training_jobs.advance_job(conn, job.id, "submitted", external_id="job-7").external_id == "job-7"
    training = training_jobs.advance_job(conn, job.id, "training")
    assert training.heartbeat > job.heartbeat
    assert training_jobs.advance_job(conn, job.id, "training", usage={"seconds": 1.5}).usage == {"seconds": 1.5}
    done = training_jobs.advance_job(conn, job.id, "trained", checkpoint_id="c", cost_usd=0.25)
    assert (done.checkpoint_id, done.external_id, done.usage) == ("c", "job-7", {"seconds": 1.5})
    assert training_jobs.list_jobs(conn, CHAIN, WINDOW) == [done]


@pytest.mark.parametrize("end", ["trained", "failed", "skipped"])
def test_an_attempt_that_has_ended_stays_ended(conn: Conn, end: training_jobs.State) -> None:
    job = start(conn)
    training_jobs.advance_job(conn, job.id, end, reason="so it went")
    for state in ("prepared", "submitted", "training", "trained", "failed", "skipped"):
        with pytest.raises(CorruptLedger, match=f"cannot become {state}"):
            training_jobs.advance_job(conn, job.id, state, reason="again")
    assert training_jobs.list_jobs(conn, CHAIN, WINDOW)[0].state == end


def test_training_does_not_go_back_to_submitted(conn: Conn) -> None:
    job = start(conn)
    training_jobs.advance_job(conn, job.id, "training")
    with pytest.raises(CorruptLedger):
        training_jobs.advance_job(conn, job.id, "submitted")


def test_orphans_fail_and_submitted_attempts_go_on(conn: Conn) -> None:
    prepared, training, submitted, trained = (start(conn) for _ in range(4))
    training_jobs.advance_job(conn, training.id, "training")
    training_jobs.advance_job(conn, submitted.id, "submitted", external_id="x")
    training_jobs.advance_job(conn, trained.id, "trained")
    other = training_jobs.start_job(conn, window=WINDOW, chain="other")
    assert training_jobs.fail_orphaned_jobs(conn, CHAIN) == 2
    states = {job.id: (job.state, job.reason is not None) for job in training_jobs.list_jobs(conn, CHAIN, WINDOW)}
    assert states == {
        prepared.id: ("failed", True),
        training.id: ("failed", True),
        submitted.id: ("submitted", False),
        trained.id: ("trained", False),
    }
    assert training_jobs.list_jobs(conn, "other", WINDOW) == [other]
