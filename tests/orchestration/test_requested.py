"""Requests of the game: one winner, an end for each, and nothing lost to a run that died."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon import training_requests
from babylon_assets.ledger.checkpoints import insert_checkpoint, reject
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.promotions import promote
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import open_instance
from babylon_assets.orchestration.sensors import build_sensors
from babylon_assets.orchestration.training_requests import REQUEST_TAG, STALE
from tests.ledger.values import CHAIN, checkpoint, dataset, root, sample
from tests.orchestration.conftest import FIRST, SECOND, Loop


@pytest.fixture
def loop(tmp_path: Path, game_database: Database) -> Iterator[Loop]:
    settings = Settings(
        home=tmp_path, database_url=game_database.url, train_rl_local=False, gate=False, train_requests=True
    )
    with open_instance(settings, game_database) as instance:
        yield Loop(settings, game_database, instance)


def ask(loop: Loop, name: str, window: str | None) -> None:
    loop.execute(
        """INSERT INTO public.training_batches
           ("id", "batchId", "scenarioId", "baseModel", "modelVersion", "trajectoryIds", "rewardsJson")
           VALUES (%s, %s, %s, 'm', 'v', '[]', '[]')""",
        *(name, name, window),
    )


def told(loop: Loop, name: str) -> tuple[Any, ...]:
    query = """SELECT "status", "error", "trainingLoss", "startedAt" <= "completedAt"
               FROM public.training_batches WHERE "id" = %s"""
    with loop.database.connect() as conn:
        found = conn.execute(query, [name]).fetchone()
    assert found is not None
    return tuple(found)


def tick(loop: Loop) -> dg.RunRequest | str:
    result: Any = loop.tick("requested_windows")
    return result if isinstance(result, dg.RunRequest) else str(result.skip_message)


def asked(loop: Loop) -> dg.RunRequest:
    result = tick(loop)
    assert isinstance(result, dg.RunRequest), result
    return result


def make_run(loop: Loop, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    job = loop.definitions.resolve_job_def("train_window")
    return loop.instance.create_run_for_job(job, tags=dict(request.tags), status=status)


def test_a_request_is_trained_and_the_game_is_told(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    request = asked(loop)
    assert (request.partition_key, request.tags[REQUEST_TAG]) == (FIRST, "one")
    assert told(loop, "one")[0] == "training"
    made = dataset(sample(0))
    with loop.database.connect() as conn:
        save_dataset(conn, made)
        insert_checkpoint(conn, root())
        insert_checkpoint(conn, checkpoint(1, FIRST, made.id))
        promote(conn, checkpoint(1, FIRST, made.id), by="a test", why="it is good")
    make_run(loop, request, dg.DagsterRunStatus.SUCCESS)
    assert tick(loop) == "the environment asks for nothing"
    status, error, loss, in_order = told(loop, "one")
    assert (status, error, in_order) == ("completed", None, True)
    assert loss == checkpoint(1, FIRST, made.id).metrics.get("loss")


def test_a_checkpoint_that_the_gate_refused_completes_no_request(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    request, made = asked(loop), dataset(sample(0))
    with loop.database.connect() as conn:
        save_dataset(conn, made)
        insert_checkpoint(conn, root())
        insert_checkpoint(conn, checkpoint(1, FIRST, made.id))
        reject(conn, checkpoint(1, FIRST, made.id).id, "worse than the one before it")
    make_run(loop, request, dg.DagsterRunStatus.SUCCESS)
    tick(loop)
    reason = f"{FIRST} was trained and {CHAIN}@1 is not promoted: worse than the one before it"
    assert told(loop, "one")[:2] == ("failed", reason)


def test_a_checkpoint_that_was_rolled_back_meanwhile_completes_no_request(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    ask(loop, "two", SECOND)
    first, made, later = asked(loop), dataset(sample(0)), dataset(sample(1, window=SECOND), window=SECOND)
    with loop.database.connect() as conn:
        for held in (made, later):
            save_dataset(conn, held)
        insert_checkpoint(conn, root())
        insert_checkpoint(conn, checkpoint(1, FIRST, made.id))
        insert_checkpoint(conn, checkpoint(2, SECOND, later.id))
        for step in (1, 2):
            promote(conn, checkpoint(step, FIRST, made.id), by="a test", why="it is good")
        promote(conn, checkpoint(1, FIRST, made.id), by="a person", why="it is worse", kind="rollback")
    make_run(loop, first, dg.DagsterRunStatus.SUCCESS)
    make_run(loop, asked(loop), dg.DagsterRunStatus.SUCCESS)
    tick(loop)
    assert told(loop, "one")[:2] == ("completed", None)  # what was rolled back to is served again
    reason = f"{CHAIN}@2 was promoted and taken back: rolled back to {CHAIN}@1: it is worse"
    assert told(loop, "two")[:2] == ("failed", f"{SECOND} was trained and {reason}")


@pytest.mark.parametrize("automation", [True, False])
def test_requests_are_looked_for_with_automation_and_without(loop: Loop, automation: bool) -> None:
    settings = loop.settings.replace(automation=automation)
    [sensor] = [
        item for item in build_sensors(Installation(settings, loop.database)) if item.name == "requested_windows"
    ]
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_a_window_that_was_not_trained_is_failed_with_the_reason(loop: Loop) -> None:
    loop.play(FIRST, agents=1)
    ask(loop, "one", FIRST)
    assert loop.run(asked(loop)).success
    tick(loop)
    assert told(loop, "one")[:2] == ("failed", f"{FIRST} is thin: 1 agents, MIN_AGENTS_PER_WINDOW is 3")


@pytest.mark.parametrize("window", [None, "yesterday", "2020-01-01T00:00", "2999-01-01T00:00"])
def test_what_cannot_be_trained_is_said_and_the_next_one_is_run(loop: Loop, window: str | None) -> None:
    ask(loop, "one", window)
    ask(loop, "two", SECOND)
    assert asked(loop).tags[REQUEST_TAG] == "two"
    status, error, *_ = told(loop, "one")
    assert status == "failed"
    assert error


def test_a_row_that_a_dead_run_left_is_taken_up_again_and_not_for_ever(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    for _ in range(3):
        request = asked(loop)
        assert request.tags[REQUEST_TAG] == "one"
        run = make_run(loop, request, dg.DagsterRunStatus.STARTED)
        assert isinstance(tick(loop), str)
        assert told(loop, "one")[0] == "training"
        loop.instance.report_run_failed(run)
    assert tick(loop) == "the environment asks for nothing"
    assert told(loop, "one")[0] == "failed"
    assert "3 runs failed" in told(loop, "one")[1]


def test_a_claim_whose_process_died_before_its_run_is_taken_up(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    with loop.database.connect() as conn:
        assert training_requests.claim(conn) is not None
    assert tick(loop) == "the environment asks for nothing"
    loop.execute("""UPDATE public.training_batches SET "startedAt" = "startedAt" - %s""", 2 * STALE)
    assert asked(loop).tags[REQUEST_TAG] == "one"


def test_of_two_claimers_one_wins(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    with loop.database.connect() as first, loop.database.connect() as second:
        mine = training_requests.claim(first)
        assert mine is not None
        assert training_requests.claim(second) is None
        first.commit()
        assert training_requests.claim(second) is None
        second.commit()
        assert training_requests.take_up(first, training_requests.claimed(first, 1)[0])
        first.commit()
        assert not training_requests.take_up(second, mine)


def test_without_the_switch_the_table_is_left_alone(loop: Loop) -> None:
    ask(loop, "one", FIRST)
    off = Loop(Settings(home=loop.settings.home, database_url=loop.settings.database.url), loop.database, loop.instance)
    assert "TRAIN_REQUESTS is false" in str(tick(off))
    assert told(loop, "one")[0] == "pending"


def test_a_role_that_may_not_write_is_told_what_to_grant(loop: Loop) -> None:
    loop.execute("ALTER TABLE public.training_batches RENAME TO gone")
    assert "no such table" in str(tick(loop))
