"""What the runtime rests on in Dagster 1.13.27, the pinned release, driven for real: each test names the lines.

None of it is promised by Dagster's public interface. An upgrade that changes one of these behaviours fails here, with a
sentence that says what the product does by it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.instance.runs import run_domain
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.tags import (
    EXTERNALLY_MANAGED_ASSETS_TAG,
)
from dagster_postgres.event_log import PostgresEventLogStorage

from babylon_assets.domain.windows import HOURLY
from babylon_assets.orchestration.runtime import UNFINISHED, range_tags, window_range
from babylon_assets.orchestration.runtime.event_log import EventLog
from babylon_assets.orchestration.runtime.provenance import input_tags
from tests.servers import Server

WINDOWS = dg.HourlyPartitionsDefinition("2026-11-05T00:00", fmt="%Y-%m-%dT%H:00", timezone="UTC")
FIRST, SECOND = "2026-11-05T00:00", "2026-11-05T01:00"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RANGE = range_tags(FIRST, SECOND)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def step_that(body: Any, **more: Any) -> dg.AssetsDefinition:
    """Two assets, one made of the other, with a blocking check, made by one step as ours are."""
    check = dg.AssetCheckSpec("looked", asset="second", blocking=True)

    @dg.multi_asset(
        name="step",
        specs=[dg.AssetSpec("first"), dg.AssetSpec("second", deps=["first"])],
        check_specs=[check],
        partitions_def=WINDOWS,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        **more,
    )
    def step(context):  # type: ignore[no-untyped-def]
        yield from body(context)

    return step


def execute(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    job = dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=tags or RANGE, raise_on_error=False, run_config=QUIET)


def record_and_hand_over(context: Any, *, outputs: tuple[str, ...] = ("first", "second", "second_looked")) -> Any:
    """What `ranges` does: an event of its own for each window, then the outputs, said to be recorded by another."""
    for name in ("first", "second"):
        for window in context.partition_keys:
            context.log_event(dg.AssetMaterialization(name, partition=window))
    context.run.tags[EXTERNALLY_MANAGED_ASSETS_TAG] = "true"
    for name in outputs:
        yield dg.Output(None, output_name=name)
    context.run.tags.pop(EXTERNALLY_MANAGED_ASSETS_TAG)


def materializations(instance: dg.DagsterInstance, asset: str) -> list[str]:
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return sorted(str(record.partition_key) for record in records)


def log_of(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message or entry.message for entry in instance.all_logs(result.run_id))


def test_tags_of_a_range_are_the_windows_of_a_step(instance: dg.DagsterInstance) -> None:
    seen: list[str] = []
    step = step_that(lambda context: seen.extend(context.partition_keys) or record_and_hand_over(context))
    assert execute(instance, step).success
    assert seen == [FIRST, SECOND], "a run of a range is asked for by tags (runtime/tags.py, runtime/line.py)"
    [run] = instance.get_runs()
    assert window_range(run.tags) == (FIRST, SECOND)


def test_a_windows_own_event_makes_its_partition(instance: dg.DagsterInstance) -> None:
    step = step_that(record_and_hand_over)
    assert execute(instance, step).success
    made = instance.get_materialized_partitions(dg.AssetKey("second"))
    assert made == {FIRST, SECOND}, "events that a step logs itself count as materializations (ranges._record)"


def test_outputs_of_a_run_that_another_records_are_not_recorded_again(instance: dg.DagsterInstance) -> None:
    assert execute(instance, step_that(record_and_hand_over)).success
    assert materializations(instance, "first") == [FIRST, SECOND], (
        "a run tagged as externally managed records nothing when its outputs come (ranges._own_events)"
    )


def test_outputs_of_any_other_run_are_recorded_once_more(instance: dg.DagsterInstance) -> None:
    def plain(context: Any) -> Any:
        context.log_event(dg.AssetMaterialization("first", partition=FIRST))
        for name in ("first", "second", "second_looked"):
            yield dg.Output(None, output_name=name)

    assert execute(instance, step_that(plain)).success
    assert materializations(instance, "first") == [FIRST, FIRST, SECOND], (
        "Dagster still records every window of a run at its end: without that ranges._own_events can go"
    )


def test_an_output_for_each_check_leaves_nothing_missing(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    @dg.asset(deps=["second"], partitions_def=WINDOWS, backfill_policy=dg.BackfillPolicy.single_run())
    def third() -> None:
        pass

    with caplog.at_level(logging.WARNING, "dagster"):
        result = execute(instance, step_that(record_and_hand_over), third)
    assert result.success
    assert "did not yield" not in log_of(instance, result), "an Output stands for a check's result (ranges._outputs)"
    assert "emitted no result" not in caplog.text, "a blocking check with an Output has its result (ranges._outputs)"


def test_a_check_without_an_output_is_missed(instance: dg.DagsterInstance) -> None:
    step = step_that(lambda context: record_and_hand_over(context, outputs=("first", "second")))
    assert "did not yield" in log_of(instance, execute(instance, step)), (
        "Dagster no longer misses outputs of checks: ranges._outputs need not yield them"
    )


def test_outputs_have_to_come_in_the_order_of_the_assets(instance: dg.DagsterInstance) -> None:
    step = step_that(lambda context: record_and_hand_over(context, outputs=("second", "first", "second_looked")))
    result = execute(instance, step)
    assert not result.success, "outputs come in the order of the stages (ranges._outputs)"
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "topological order" in str(failure.step_failure_data.error)


def test_a_run_that_continues_another_is_known_by_its_tags() -> None:
    """The UI and the daemon make such a run in this module; tests here give a run the tags by hand."""
    source = inspect.getsource(run_domain)
    for tag in ("RESUME_RETRY_TAG", "ASSET_RESUME_RETRY_TAG"):
        assert f'tags[{tag}] = "true"' in source, "re-execution from failure is known by this tag (runtime/resume.py)"


def test_a_window_with_our_tags_is_in_step(instance: dg.DagsterInstance) -> None:
    first, second = dg.AssetKey("first"), dg.AssetKey("second")

    def made(name: str, version: str, known: dict[str, str]) -> None:
        tags = input_tags(instance, dg.AssetKey(name), {first} if name == "second" else set(), FIRST, known, HOURLY)
        tags |= {"dagster/data_version": version, "dagster/code_version": "1"}
        instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=FIRST, tags=tags))

    specs = [dg.AssetSpec("first", code_version="1"), dg.AssetSpec("second", deps=["first"], code_version="1")]

    @dg.multi_asset(specs=specs, partitions_def=WINDOWS)
    def both():  # type: ignore[no-untyped-def]
        pass

    def status() -> StaleStatus:
        graph = dg.Definitions(assets=[both]).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return resolver.get_status(second, FIRST)

    made("first", "a", {})
    made("second", "b", {"first": "a"})
    assert status() is StaleStatus.FRESH, "a window is in step by the tags that it names (runtime/provenance.py)"
    made("first", "c", {})
    assert status() is StaleStatus.STALE, "a newer version of a parent makes it out of step (runtime/provenance.py)"


def test_unfinished_runs_are_those_that_have_not_ended() -> None:
    ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    ended |= {dg.DagsterRunStatus.MANAGED, dg.DagsterRunStatus.SUSPENDED}  # of no run of ours
    assert set(UNFINISHED) - ended == set(dg.DagsterRunStatus) - ended, "sensors wait for these (runtime/tags.py)"


def test_our_event_log_leaves_the_rows_that_dagsters_own_leaves(instance: dg.DagsterInstance, server: Server) -> None:
    """`EventLog._store` calls inner functions of the original; what they write is compared, table by table."""
    result = execute(instance, step_that(every_kind_of_event))
    assert result.success
    events = instance.all_logs(result.run_id)
    ours, theirs = (rows_of(server, storage, events) for storage in (EventLog, PostgresEventLogStorage))
    assert all(ours.values())
    assert ours == theirs, "our event log writes what the original writes (runtime/event_log.py)"


def every_kind_of_event(context: Any) -> Any:
    for name in ("first", "second"):
        tags = {"dagster/data_version": "a", "dagster/code_version": "1"}
        context.log_event(dg.AssetMaterialization(name, partition=FIRST, metadata={"rows": 3}, tags=tags))
    context.log_event(dg.AssetObservation("first", partition=SECOND, metadata={"rows": 4}))
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("second"), check_name="looked", passed=False, metadata={}, partition=FIRST
    )
    context.log_event(evaluation)
    yield from record_and_hand_over(context)


def rows_of(
    server: Server, storage: type[PostgresEventLogStorage], events: Sequence[dg.EventLogEntry]
) -> dict[str, list[Any]]:
    """What is in the tables once the events are stored: one by one, and some together."""
    name = server.create()
    url = server.database(name).url
    log = storage(url.replace("postgresql://", "postgresql+psycopg2://"), True)
    batched = [event for event in events if event.dagster_event_type in BATCHED]
    for event in events:
        if event not in batched:
            log.store_event(event)
    log.store_event_batch(batched)
    for event in batched:
        log.store_event(event)
    log.dispose()
    with psycopg.connect(url) as conn:
        found = {
            table: conn.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2".encode()).fetchall()
            for table, columns in KEPT.items()
        }
    server.drop(name)
    return found


#: Kinds of events that are stored several at once.
BATCHED = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION}
#: Tables of the event log, and their columns but for ids and the times of writing.
KEPT = {
    "event_logs": "dagster_event_type, event, run_id, step_key, asset_key, partition",
    "asset_keys": "asset_key, last_run_id, asset_details, last_materialization",
    "asset_event_tags": "key, value, asset_key",
    "asset_check_executions": "check_name, partition, asset_key, run_id, execution_status, evaluation_event",
}
