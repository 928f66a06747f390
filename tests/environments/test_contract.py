"""What every environment promises, tried on each that there is: Babylon, the simulated market, the support desk."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pytest
from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.hindsight import result_in
from babylon_assets.domain.trajectories import Message, Quarantined, TrajectoryRecord
from babylon_assets.environments.base import Environment, SourceWindow, read_at_one_moment
from babylon_assets.ledger.database import Database
from tests.environments.cases import CASES, Case

#: An hour in which nothing happened.
QUIET = "2026-09-01T00:00"
STATES = {"final", "pending", "no_trade", "invalid", "unknown"}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def environment(case: Case) -> Environment:
    return case.make(Settings(**case.settings))


@pytest.fixture
def filled(case: Case, database: Database) -> Database:
    """A database with an hour of the environment's record."""
    with database.connect() as conn:
        case.create(conn)
        case.fill(conn)
    return database


@pytest.fixture
def reading(filled: Database) -> Iterator[Connection[Any]]:
    """As the raw trajectories are read: at one moment, and unable to write."""
    with filled.connect() as conn:
        read_at_one_moment(conn)
        yield conn


def read(environment: Environment, conn: Connection[Any], window: str) -> dict[str, TrajectoryRecord]:
    rows = {row.trajectory_id: row for row in environment.read_window(conn, window)}
    return {name: row for name, row in rows.items() if isinstance(row, TrajectoryRecord)}


def value(
    environment: Environment, conn: Connection[Any], window: str, as_of: datetime | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The steps of a window, and what they were worth."""
    steps = steps_frame(read(environment, conn, window).values(), environment.detail)
    steps.index = pd.RangeIndex(7, 7 + len(steps))
    return steps, environment.value_steps(conn, window, steps, as_of)


def test_it_says_whether_its_record_is_there(case: Case, environment: Environment, database: Database) -> None:
    with database.connect() as conn:
        assert not environment.has_record(conn)
        case.create(conn)
        assert environment.has_record(conn)


def test_a_table_that_is_missing_is_named(case: Case, environment: Environment, database: Database) -> None:
    with database.connect() as conn:
        case.create(conn)
        environment.check(conn)
        conn.execute(f"DROP TABLE {case.table} CASCADE".encode())
        with pytest.raises(SourceError, match=case.table.removeprefix("public.")):
            environment.check(conn)


def test_an_empty_record_has_no_windows(case: Case, environment: Environment, database: Database) -> None:
    with database.connect() as conn:
        case.create(conn)
        assert environment.list_windows(conn) == []
        assert environment.presence(conn, []) == []
        assert list(environment.read_window(conn, case.window)) == []


def test_the_windows_that_are_listed_are_read(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    listed = environment.list_windows(reading)
    records = read(environment, reading, case.window)
    assert listed == [SourceWindow(case.window, len({row.agent_id for row in records.values()}), len(records))]
    assert len(records) >= 3
    assert environment.list_windows(reading, case.window) == listed
    assert environment.list_windows(reading, "2026-12-01T00:00") == []
    assert list(environment.read_window(reading, QUIET)) == []


def test_shorter_windows_share_the_same_rows(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    quarters = case.make(Settings(**case.settings, window_minutes=15))
    listed = {row.window: row.trajectories for row in quarters.list_windows(reading)}
    rows = {window: [row.trajectory_id for row in quarters.read_window(reading, window)] for window in listed}
    assert {window: len(names) for window, names in rows.items()} == listed
    assert sorted(chain.from_iterable(rows.values())) == sorted(read(environment, reading, case.window))
    assert len({quarters.fingerprint(reading, window, []) for window in [*listed, QUIET]}) == len(listed) + 1


def test_presence_counts_what_is_listed(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    quiet, there = environment.presence(reading, [QUIET, case.window])
    [listed] = environment.list_windows(reading)
    assert (quiet.window, quiet.rows, quiet.agents) == (QUIET, 0, 0)
    assert (there.window, there.rows, there.agents) == (case.window, listed.trajectories, listed.agents)


def test_a_record_is_whole(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    for record in read(environment, reading, case.window).values():
        steps = [fact.step for fact in record.facts]
        assert record.window == case.window
        assert record.start_time.tzinfo is not None and record.start_time <= record.end_time
        assert len(set(steps)) == len(steps) > 0
        assert {sample.step for sample in record.samples} <= set(steps)
        assert all(sample.messages and sample.model for sample in record.samples)
        assert all(fact.detail.keys() <= environment.detail.keys() for fact in record.facts)
        assert record.references == sorted(set(record.references))
        assert all(environment.describe_action(fact) for fact in record.facts)


def test_reading_twice_gives_the_same(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    assert read(environment, reading, case.window) == read(environment, reading, case.window)
    first, again = (environment.fingerprint(reading, case.window, []) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("event", ["change", "corrupt", "settle", "revise"])
def test_a_change_is_noticed(case: Case, environment: Environment, filled: Database, event: str) -> None:
    with filled.connect() as conn:
        if event == "revise":
            case.settle(conn)
        references = sorted({name for row in read(environment, conn, case.window).values() for name in row.references})
        before = environment.fingerprint(conn, case.window, references)
        elsewhere = environment.fingerprint(conn, QUIET, [])
        getattr(case, event)(conn)
        assert environment.fingerprint(conn, case.window, references) != before
        assert environment.fingerprint(conn, QUIET, []) == elsewhere


def test_the_hash_of_a_record_is_that_of_its_row(case: Case, environment: Environment, filled: Database) -> None:
    with filled.connect() as conn:
        before = {name: row.content_hash for name, row in read(environment, conn, case.window).items()}
        case.change(conn)
        after = {name: row.content_hash for name, row in read(environment, conn, case.window).items()}
    assert len({*before.values()}) == len(before)
    assert sorted(name for name in before if after[name] != before[name]) == [min(before)]


def test_a_corrupt_row_costs_one_row(case: Case, environment: Environment, filled: Database) -> None:
    with filled.connect() as conn:
        before = read(environment, conn, case.window)
        case.corrupt(conn)
        rows = list(environment.read_window(conn, case.window))
    [lost] = [row for row in rows if isinstance(row, Quarantined)]
    assert (lost.window, lost.trajectory_id) == (case.window, min(before))
    assert lost.reason and lost.place and lost.row_hash
    kept = {row.trajectory_id: row for row in rows if isinstance(row, TrajectoryRecord)}
    assert kept == {name: row for name, row in before.items() if name != lost.trajectory_id}


def test_no_prompt_names_a_result(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    keys = environment.result_keys
    prompts = [each.messages for row in read(environment, reading, case.window).values() for each in row.samples]
    assert prompts and all(result_in(messages, keys) is None for messages in prompts)
    for key in keys:
        assert result_in([Message("user", f'{{"{key}": 1}}')], keys) == key


def test_only_what_is_known_has_a_worth(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    steps, valued = value(environment, reading, case.window)
    assert valued.index.equals(steps.index)
    assert set(valued["state"]) <= STATES
    assert ((valued["state"] == "invalid") == steps["invalid"]).all() and steps["invalid"].any()
    known = valued["state"].isin(["final", "no_trade"])
    assert (valued["worth"].notna() == known).all()
    assert valued["worth"].dropna().between(-1, 1).all()
    assert (valued["worth"][valued["state"] == "no_trade"] == 0).all()


def test_an_outcome_that_comes_late_is_known_from_then_on(
    case: Case, environment: Environment, filled: Database
) -> None:
    with filled.connect() as conn:
        _, before = value(environment, conn, case.window)
        case.settle(conn)
        _, after = value(environment, conn, case.window)
        _, earlier = value(environment, conn, case.window, datetime.now(UTC) - timedelta(days=1))
    assert (after["state"] == "final").sum() > (before["state"] == "final").sum()
    assert (earlier["state"] == "final").sum() < (after["state"] == "final").sum()


def test_a_window_without_steps_can_be_valued(case: Case, environment: Environment, reading: Connection[Any]) -> None:
    valued = environment.value_steps(reading, QUIET, steps_frame([], environment.detail))
    assert len(valued) == 0 and {"worth", "state"} <= set(valued)


def test_its_scorers_give_every_step_a_number_or_say_that_they_cannot(
    case: Case, environment: Environment, reading: Connection[Any]
) -> None:
    steps, valued = value(environment, reading, case.window)
    frame = steps.assign(worth=valued["worth"], state=valued["state"])
    for name, scorer in environment.scorers.items():
        assert scorer.name == name and scorer.version
        numbers = scorer.score(frame)
        assert numbers.index.equals(frame.index)
        assert not np.isinf(numbers).any()
