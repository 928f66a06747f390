"""What is live, since when, and who said so: rows that are only appended, and the line that they leave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.errors import ChainConflict
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.verdicts import StoredVerdict, standings, store_verdict, verdict_on, without_verdict
from tests.ledger.values import CHAIN, LATER, LATEST, WINDOW, checkpoint, dataset, root, sample

Conn = psycopg.Connection[Any]


@pytest.fixture
def line(conn: Conn) -> list[Checkpoint]:
    """A root and two checkpoints."""
    kept = dataset(sample(0))
    save_dataset(conn, kept)
    made = [root(), checkpoint(1, WINDOW, kept.id), checkpoint(2, LATER, kept.id)]
    checkpoints.ensure_root(conn, made[0])
    for one in made[1:]:
        checkpoints.insert_checkpoint(conn, one)
    conn.commit()
    return made


def test_the_newest_row_says_what_is_live(conn: Conn, line: list[Checkpoint]) -> None:
    assert promotions.promoted(conn, CHAIN) is None
    first = promotions.promote(conn, line[1], by="gate", why="better", verdict={"passed": True}, dagster_run_id="run-1")
    second = promotions.promote(conn, line[2], by="gate", why="better still")
    back = promotions.promote(conn, line[1], by="me", why="it misbehaved", kind="rollback")
    assert [(one.from_id, one.to_id) for one in (first, second, back)] == [
        (None, line[1].id),
        (line[1].id, line[2].id),
        (line[2].id, line[1].id),
    ]
    assert promotions.promoted(conn, CHAIN) == line[1]
    assert promotions.promoted(conn, "another") is None
    assert promotions.history(conn, CHAIN) == [first, second, back]
    assert (first.verdict, first.dagster_run_id, second.verdict) == ({"passed": True}, "run-1", None)


def test_what_was_live_at_a_moment(conn: Conn, line: list[Checkpoint]) -> None:
    before = datetime.now(UTC)
    moments = [promotions.promote(conn, one, by="gate", why="better").promoted_at for one in line[1:]]
    assert moments[0] < moments[1]
    asked = [before, moments[0], moments[1] - timedelta(microseconds=1), moments[1], moments[1] + timedelta(days=1)]
    found = [promotions.served_at(conn, CHAIN, moment) for moment in asked]
    assert found == [None, line[1], line[1], line[2], line[2]]


def test_promotions_at_once_have_one_order(database: Database, conn: Conn, line: list[Checkpoint]) -> None:
    def one(number: int) -> None:
        with database.connect() as own:
            promotions.promote(own, line[number % 3], by=f"{number}", why="at once")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    told = promotions.history(conn, CHAIN)
    assert len(told) == 24
    assert [row.from_id for row in told[1:]] == [row.to_id for row in told[:-1]]
    assert [row.promoted_at for row in told] == sorted(row.promoted_at for row in told)


def rejected_reasons(conn: Conn) -> dict[int, str | None]:
    return {one.step: one.rejected for one in checkpoints.chain(conn, CHAIN)}


def test_a_refused_checkpoint_keeps_its_name_and_is_never_a_parent(conn: Conn, line: list[Checkpoint]) -> None:
    checkpoints.reject(conn, line[2].id, "refused: it is worse")
    assert checkpoints.head(conn, CHAIN) == line[1]
    assert checkpoints.newest_before(conn, CHAIN, LATEST) == line[1]
    assert checkpoints.next_step(conn, CHAIN, line[1]) == 3
    made = checkpoint(3, LATEST, line[1].dataset_id or "", parent_id=line[1].id)
    checkpoints.insert_checkpoint(conn, made)  # a second child of the same parent
    assert checkpoints.head(conn, CHAIN) == made
    with pytest.raises(ChainConflict, match="model_checkpoints_parent"):
        again = checkpoint(4, "2026-11-05T17:00", made.dataset_id or "", parent_id=line[1].id)
        checkpoints.insert_checkpoint(conn, again)


def test_going_back_makes_what_came_after_rejected(conn: Conn, line: list[Checkpoint]) -> None:
    promotions.promote(conn, line[2], by="gate", why="better")
    assert rejected_reasons(conn) == {0: None, 1: None, 2: None}
    promotions.promote(conn, line[1], by="me", why="it lost money", kind="rollback")
    assert rejected_reasons(conn) == {0: None, 1: None, 2: f"rolled back to {CHAIN}@1: it lost money"}
    assert standings(conn, CHAIN) == {WINDOW: "promoted", LATER: "rolled back"}
    promotions.promote(conn, line[2], by="me", why="it did not")
    assert rejected_reasons(conn) == {0: None, 1: None, 2: None}


def test_of_two_children_the_promoted_one_is_on_the_line(conn: Conn, line: list[Checkpoint]) -> None:
    checkpoints.reject(conn, line[2].id, "refused: it is worse")
    checkpoints.insert_checkpoint(conn, checkpoint(3, LATEST, line[1].dataset_id or "", parent_id=line[1].id))
    assert standings(conn, CHAIN) == {LATER: "rejected"}
    promotions.promote(conn, line[2], by="me", why="I know better")
    assert rejected_reasons(conn) == {
        0: None,
        1: None,
        2: None,
        3: f"{CHAIN}@2 was promoted in its place: I know better",
    }
    assert checkpoints.head(conn, CHAIN) == line[2]


def test_a_checkpoint_whose_parent_was_rolled_back_while_it_trained_is_rejected(
    conn: Conn, line: list[Checkpoint]
) -> None:
    promotions.promote(conn, line[2], by="gate", why="better")
    promotions.promote(conn, line[1], by="me", why="it lost money", kind="rollback")
    checkpoints.insert_checkpoint(conn, checkpoint(3, LATEST, line[1].dataset_id or "", parent_id=line[2].id))
    assert rejected_reasons(conn)[3] == f"its parent, {CHAIN}@2, was rejected while it was trained"
    assert checkpoints.head(conn, CHAIN) == line[1]


def test_the_head_is_unjudged_until_something_was_said_of_it(conn: Conn, line: list[Checkpoint]) -> None:
    assert without_verdict(conn, CHAIN) == line[2]
    promotions.promote(conn, line[2], by="gate", why="better")
    assert without_verdict(conn, CHAIN) is None
    promotions.promote(conn, line[0], by="me", why="start again", kind="rollback")
    assert without_verdict(conn, CHAIN) is None  # the base model needs no verdict
    assert without_verdict(conn, "another") is None


def test_a_verdict_is_final(conn: Conn, line: list[Checkpoint]) -> None:
    first = StoredVerdict(
        checkpoint_id=line[2].id, chain=CHAIN, champion_id=line[1].id, passed=False, why="worse", verdict={"passed": 0}
    )
    assert verdict_on(conn, line[2].id) is None
    assert store_verdict(conn, first)
    assert not store_verdict(conn, StoredVerdict(**{**{n: getattr(first, n) for n in first.__slots__}, "passed": True}))
    kept = verdict_on(conn, line[2].id)
    assert kept and (kept.passed, kept.why, kept.verdict) == (False, "worse", {"passed": 0})
    conn.commit()
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        conn.execute("UPDATE babylon_training.gate_verdicts SET passed = true")
