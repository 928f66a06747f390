"""Runs of one window at the same time, and readers beside them: one result, and nobody sees a part of it."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.ledger import datasets, trajectories
from babylon_assets.ledger.database import Database, window_lock
from babylon_assets.orchestration.assets.raw_trajectories import copy_window
from babylon_assets.orchestration.collector import collector_held_off
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import score_window
from tests.domain.rows import WINDOW
from tests.orchestration.assets.conftest import ROWS, data_path


def counts(database: Database) -> list[Any]:
    tables = ("raw_trajectories", "training_datasets", "training_dataset_trajectories", "training_dataset_samples")
    with database.connect() as conn:
        return [
            conn.execute(f"SELECT count(*) FROM babylon_training.{table}".encode()).fetchone()[0]  # type: ignore[index]
            for table in tables
        ]


def test_two_runs_of_one_window_at_once_have_one_result(game: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda _: data_path(game), range(4)))
    assert len(set(ids)) == 1
    assert counts(game) == [ROWS, 1, ROWS, ROWS]
    with game.connect() as conn:
        assert datasets.load_dataset(conn, ids[0]).id == ids[0]


def test_a_dataset_waits_for_a_window_that_is_being_replaced(game: Database) -> None:
    installation = Installation(Settings(), game)
    copy_window(installation, WINDOW)
    score_window(installation, WINDOW)
    with ThreadPoolExecutor(1) as pool:
        with game.connect() as conn:
            window_lock(conn, WINDOW)
            frozen = pool.submit(freeze_window, installation, WINDOW)
            with pytest.raises(TimeoutError):
                frozen.result(timeout=1)
        assert len(frozen.result(timeout=60)[0].samples) == ROWS


def test_four_readers_see_a_window_as_it_was_or_as_it_is(game: Database) -> None:
    installation, stop, seen = Installation(Settings(), game), threading.Event(), set[tuple[int, int]]()

    def read() -> None:
        with game.connect_autocommit() as conn:
            while not stop.is_set():
                kept = trajectories.read_window(conn, WINDOW)
                seen.add((len(kept), len({record.final_status for record in kept})))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for version in range(8):
            with game.connect() as conn:
                conn.execute(
                    """UPDATE public.trajectories SET "finalStatus" = %s, "updatedAt" = "updatedAt" + interval '1 s'""",
                    [str(version)],
                )
            copy_window(installation, WINDOW)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert seen <= {(0, 0), (ROWS, 1)}
    assert (ROWS, 1) in seen


def test_what_is_the_same_for_all_windows_is_found_once_a_run() -> None:
    installation, found = Installation(Settings()), list[int]()

    def find() -> int:
        found.append(1)
        return len(found)

    assert [installation.once_a_run("x", find) for _ in range(2)] == [1, 2]
    with installation.reusing_connections():
        assert [installation.once_a_run("x", find) for _ in range(2)] == [3, 3]
    assert installation.once_a_run("x", find) == 4


def test_the_collector_rests_until_the_last_window_is_done() -> None:
    assert gc.isenabled()
    with collector_held_off():
        with collector_held_off():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
