"""Hours that the environment never had: no line in our tables, no partition before the record begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from babylon_assets.cli.backfill import run_backfill
from babylon_assets.cli.train import refuse_unrecorded
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.orchestration import partitions
from babylon_assets.orchestration.jobs import DATA, TRAINING
from babylon_assets.orchestration.partitions import beginning_with_the_record, build_partitions
from babylon_assets.orchestration.runtime import Line, range_tags
from babylon_assets.orchestration.unrecorded_windows import NOTHING
from tests.orchestration.conftest import FIRST, FOURTH, QUIET, SECOND, THIRD, Loop

TABLES = ("windows", "training_datasets", "raw_trajectories", "trajectory_scores", "training_jobs")


def test_a_range_over_hours_that_were_never_recorded_is_green_and_leaves_nothing_of_them(loop: Loop) -> None:
    loop.play(SECOND)
    result = loop.definitions.resolve_job_def("train_window").execute_in_process(
        instance=loop.instance, tags=range_tags(FIRST, FOURTH), raise_on_error=False, run_config=QUIET
    )
    assert result.success
    for asset in (*DATA, *TRAINING):
        events = [
            event for event in result.asset_materializations_for_node(_step(asset)) if event.asset_key.path == [asset]
        ]
        reasons = {
            event.partition: str(event.metadata["reason"].value) for event in events if "reason" in event.metadata
        }
        assert {window for window, reason in reasons.items() if reason == NOTHING} == {FIRST, THIRD, FOURTH}, asset
    with loop.database.connect() as conn:
        for table in TABLES:
            query = f"SELECT count(*) FROM babylon_training.{table} WHERE window_id <> %s"
            assert conn.execute(query.encode(), [SECOND]).fetchone() == (0,), table
    loop.play(THIRD)  # late rows of such an hour are read as any hour's
    assert loop.asked().partition_key == THIRD


def _step(asset: str) -> str:
    return "window_data" if asset in DATA else asset


def test_a_backfill_over_them_does_nothing_the_second_time(loop: Loop) -> None:
    loop.play(SECOND)
    windows, line = [FIRST, SECOND, THIRD], Line(loop.definitions, loop.instance)
    assert run_backfill(loop.settings, loop.database, line, windows).read == 1
    again = run_backfill(loop.settings, loop.database, line, windows)
    assert (again.read, again.runs, again.states) == (0, [], {"empty": 2, "ready": 1})
    assert line.materialized(DATA[0]) == {SECOND}


def test_hours_before_the_record_are_no_windows_of_a_command(loop: Loop) -> None:
    loop.play(THIRD)
    line = Line(loop.definitions, loop.instance)
    settings = loop.settings.replace(train_rl_local=True)
    done = run_backfill(settings, loop.database, line, [FIRST, SECOND])
    assert (done.read, done.trained, done.runs, done.states) == (0, 0, [], {"empty": 2})
    with pytest.raises(PermanentError, match=rf"no row of {FIRST}, so nothing was trained"):
        refuse_unrecorded(settings, loop.database, FIRST)
    assert line.materialized(TRAINING[0]) == set() and loop.instance.get_runs() == []
    refuse_unrecorded(settings, loop.database, THIRD)


def test_partitions_begin_where_the_record_begins_unless_it_is_set(loop: Loop) -> None:
    settings, now = Settings(home=loop.settings.home), datetime.now(UTC)

    def first(of: Settings) -> str:
        return beginning_with_the_record(of, loop.database, now).window_start

    assert first(settings) == HOURLY.of(now).id
    loop.play(THIRD)
    assert first(settings) == THIRD
    with loop.database.connect() as conn:
        upsert_window(conn, SECOND, status="thin")
    assert first(settings) == SECOND
    assert first(settings.replace(window_start=FIRST)) == FIRST
    begun = beginning_with_the_record(settings, loop.database, now)
    assert build_partitions(begun).get_partition_keys(current_time=now)[0] == SECOND
    with loop.database.connect() as conn:
        upsert_window(conn, "1999-01-01T00:00", status="thin")
    assert first(settings) == HOURLY.of(now - partitions.FARTHEST_BACK).id < HOURLY.of(now - timedelta(days=365)).id
