"""The event log on PostgreSQL: rows as the original writes them, several in one transaction, on kept connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.storage import asset_check_state
from dagster_postgres.event_log import PostgresEventLogStorage

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.runtime import open_instance
from babylon_assets.orchestration.runtime.event_log import EventLog

HOURS = dg.HourlyPartitionsDefinition("2026-11-05T00:00", fmt="%Y-%m-%dT%H:00", end_offset=0)
KEYS = [f"2026-11-05T{hour:02d}:00" for hour in range(6)]
RANGE = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}


@pytest.fixture
def instance(tmp_path: Path, database: Database) -> Iterator[dg.DagsterInstance]:
    with open_instance(Settings(home=tmp_path, database_url=database.url), database) as instance:
        yield instance


@pytest.fixture
def log(instance: dg.DagsterInstance) -> EventLog:
    assert isinstance(instance.event_log_storage, EventLog)
    return instance.event_log_storage


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    url = database.dagster_url.replace("postgresql+psycopg2", "postgresql")
    with psycopg.connect(url) as conn:
        return conn.execute(query.encode()).fetchall()


@dg.asset(partitions_def=HOURS, backfill_policy=dg.BackfillPolicy.single_run())
def thing() -> None:
    pass


def test_a_range_run_leaves_a_planned_and_a_made_row_per_partition(
    instance: dg.DagsterInstance, database: Database
) -> None:
    assert dg.materialize([thing], instance=instance, tags=RANGE).success
    found = rows(
        database, "SELECT dagster_event_type, partition FROM event_logs WHERE partition IS NOT NULL ORDER BY id"
    )
    for kind in ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION"):
        assert [key for each, key in found if each == kind] == KEYS
    assert instance.get_materialized_partitions(thing.key) == set(KEYS)
    tags = rows(database, "SELECT count(DISTINCT event_id) FROM asset_event_tags WHERE key = 'dagster/data_version'")
    assert tags == [(len(KEYS),)]
    event = instance.get_latest_materialization_event(thing.key)
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.partition == KEYS[-1]


def test_events_together_are_seen_together_or_never(
    instance: dg.DagsterInstance, log: EventLog, database: Database
) -> None:
    def count() -> int:
        return len(rows(database, "SELECT 1 FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"))

    with log.together():
        for key in KEYS[:2]:
            instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=key))
        assert count() == 0
    assert count() == 2
    with suppress(ZeroDivisionError), log.together():
        instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[2]))
        raise ZeroDivisionError
    assert count() == 2
    assert instance.get_materialized_partitions(dg.AssetKey("thing")) == set(KEYS[:2])


def test_a_server_that_was_away_between_two_events_costs_none(instance: dg.DagsterInstance, database: Database) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[0]))
    ended = rows(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert ended
    instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[1]))
    assert instance.get_materialized_partitions(dg.AssetKey("thing")) == set(KEYS[:2])


def test_no_connection_is_left_when_the_instance_is_disposed(tmp_path: Path, database: Database) -> None:
    with open_instance(Settings(home=tmp_path, database_url=database.url), database) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[0]))
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert rows(database, query) == [(0,)]


def test_the_states_of_checks_are_found_anew_only_where_something_happened(
    instance: dg.DagsterInstance, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are always what the original finds, which goes through every partition each time."""
    check = (dg.AssetCheckKey(thing.key, "sound"), HOURS)
    gone_through: list[int] = []
    go_through = asset_check_state._process_partition_records

    def counting(*given: Any) -> Any:
        gone_through.append(len(given[-1]))
        return go_through(*given)

    monkeypatch.setattr(asset_check_state, "_process_partition_records", counting)

    def report(window: str, *, passed: bool) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=window))
        evaluation = dg.AssetCheckEvaluation(thing.key, "sound", passed, {}, partition=window)
        instance.report_runless_asset_event(evaluation)

    def find() -> int:
        """How many partitions it went through."""
        gone_through.clear()
        state = log.get_asset_check_state([check])
        found = sum(gone_through)
        assert state == PostgresEventLogStorage.get_asset_check_state(log, [check])
        return found

    assert (find(), find()) == (0, 0)
    for key in KEYS[:-1]:
        report(key, passed=True)
    assert (find(), find()) == (len(KEYS) - 1, 0)
    report(KEYS[-1], passed=False)
    assert (find(), find()) == (len(KEYS), 0)
    instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[2]))
    assert (find(), find()) == (len(KEYS), 0)
    instance.wipe_assets([thing.key])
    find()
