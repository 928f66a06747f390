"""What is live, since when, and who said so: rows that are only appended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from babylon_assets.store import checkpoints, promotions
from babylon_assets.store.checkpoints import Checkpoint
from babylon_assets.store.database import Database
from babylon_assets.store.datasets import save_dataset
from tests.store.values import CHAIN, LATER, WINDOW, checkpoint, dataset, root, sample

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
    found = [promotions.live_at(conn, CHAIN, moment) for moment in asked]
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
