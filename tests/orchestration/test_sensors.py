"""The loop without a person: ticks on a real game and a real instance, and the runs that they ask for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.promotions import promote
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.orchestration import sensors, window_queue
from babylon_assets.orchestration.metadata import METADATA
from tests.environments.babylon.rows import trade
from tests.ledger.values import checkpoint, dataset, root, sample
from tests.orchestration.conftest import FIRST, FOURTH, QUIET, SECOND, THIRD, Loop, broken


def test_closed_windows_are_run_oldest_first_and_once(loop: Loop) -> None:
    loop.play(FIRST)
    loop.play(THIRD)
    request = loop.asked()
    assert (request.partition_key, request.run_key) == (FIRST, loop.asked().run_key)
    assert loop.run(request).success
    assert loop.status(FIRST) == "ready"
    second = loop.asked()
    assert second.partition_key == THIRD
    assert loop.run(second).success
    assert loop.said().startswith("no window waits")
    assert loop.cursors["closed_windows"] == THIRD


def test_after_an_outage_the_windows_that_follow_each_other_are_one_run(loop: Loop) -> None:
    for window in (FIRST, SECOND, FOURTH):
        loop.play(window)
    request = loop.asked()
    assert (request.partition_key, sensors.windows_of(request.tags)) == (None, f"{FIRST} to {SECOND}")
    assert loop.run(request).success
    assert (loop.status(FIRST), loop.status(SECOND)) == ("ready", "ready")
    assert loop.asked().partition_key == FOURTH


def test_what_the_games_tables_have_is_noted_for_the_windows_that_are_asked_for(loop: Loop) -> None:
    """A row without a windowId counts for the hour of its end; the fourth window is not asked for yet."""
    for window in (FIRST, SECOND, FOURTH):
        loop.play(window)
    loop.execute('UPDATE public."trajectories" SET "windowId" = NULL WHERE id = %s', f"{SECOND}-agent-0")
    end = HOURLY.bounds(FIRST)[1]
    market = {"question": "?", "liquidity": 1, "updatedAt": end + timedelta(hours=2)}
    markets = [{"id": f"m{n}", "endDate": end - timedelta(minutes=n), "resolved": n > 1, **market} for n in (0, 1, 2)]
    with loop.database.connect() as conn:
        copy_rows(conn, "Market", markets)
        copy_rows(conn, "market_outcomes", [{"id": f"o{n}", "windowId": FIRST, "createdAt": end} for n in range(5)])
    result = loop.tick("closed_windows")
    assert isinstance(result, dg.SensorResult)
    told = {(event.asset_key.path[-1], event.partition): plain(event) for event in result.asset_events}
    assert set(told) == {(table, window) for table in ("trajectories", "outcomes") for window in (FIRST, SECOND)}
    first = told["trajectories", FIRST]
    assert (first["trajectories"], first["agents"], first["newest"]) == (4, 4, end.timestamp())
    assert 0 < told["trajectories", SECOND]["overdue_minutes"] < first["overdue_minutes"]
    assert told["trajectories", SECOND]["trajectories"] == 4
    newest = (end + timedelta(hours=2)).timestamp()
    assert told["outcomes", FIRST] == {"outcomes": 5, "markets": 2, "markets_resolved": 1, "newest": newest}
    assert told["outcomes", SECOND] == {"outcomes": 0, "markets": 1, "markets_resolved": 0, "newest": newest}

    assert loop.run(loop.asked()).success
    loop.execute(LEAVE_OUT, f"{FIRST}-agent-0")
    again = loop.tick("changed_windows")
    assert isinstance(again, dg.SensorResult)
    assert {event.partition for event in again.asset_events} == {FIRST}
    assert "overdue_minutes" not in plain(again.asset_events[0])
    assert set(METADATA) >= {name for event in result.asset_events for name in event.metadata}


def plain(event: Any) -> dict[str, Any]:
    return {name: value.value for name, value in event.metadata.items()}


def test_a_window_within_its_grace_waits(loop: Loop) -> None:
    loop.play(FIRST)
    end = HOURLY.bounds(FIRST)[1]
    for minutes, waiting in ((-1, []), (4, []), (5, [FIRST])):
        found = window_queue.next_windows(loop.installation, end + timedelta(minutes=minutes), None, never)
        assert found.windows == waiting


def never(window: str, fingerprint: str) -> window_queue.Attempts:
    return window_queue.Attempts(0, None)


def test_too_few_agents_are_thin_without_a_run_and_wake_up_when_more_come(loop: Loop) -> None:
    loop.play(FIRST, agents=2)
    result = loop.tick("closed_windows")
    assert isinstance(result, dg.SensorResult)
    [event] = result.asset_events
    assert (event.partition, event.metadata["reason"].value) == (FIRST, "2 agents, MIN_AGENTS_PER_WINDOW is 3")
    assert loop.status(FIRST) == "thin"
    assert loop.said().startswith("no window waits")


def test_many_thin_windows_are_noted_in_several_looks_and_none_is_passed_over(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_queue, "MOST_THIN", 2)
    windows = (FIRST, SECOND, THIRD, FOURTH)
    for window in windows:
        loop.play(window, agents=2)
    loop.tick("closed_windows")
    assert [loop.status(window) for window in windows] == ["thin", "thin", None, None]
    loop.tick("closed_windows")
    assert [loop.status(window) for window in windows] == ["thin"] * 4


def test_of_many_failed_windows_all_have_their_turn_and_none_holds_up_the_others(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_queue, "MOST_FAILED", 1)
    for window in (FIRST, SECOND, THIRD, FOURTH):
        loop.play(window)
    with loop.database.connect() as conn:
        for window in (FIRST, SECOND, THIRD):
            upsert_window(conn, window, status="failed")
    looked: list[str] = []

    def failed_once(window: str, _fingerprint: str) -> window_queue.Attempts:
        looked.append(window)
        return window_queue.Attempts(int(window != FOURTH), None)

    start = HOURLY.bounds(FOURTH)[1] + timedelta(minutes=5)
    for half_minutes in range(3):
        found = window_queue.next_windows(
            loop.installation, start + timedelta(seconds=30 * half_minutes), None, failed_once
        )
        assert (found.windows, found.cursor) == ([FOURTH], FIRST)
    assert sorted(looked) == [FIRST, SECOND, THIRD, *[FOURTH] * 3]


def test_nothing_is_launched_while_the_line_runs(loop: Loop) -> None:
    loop.play(FIRST)
    request = loop.asked()
    job = loop.definitions.resolve_job_def("train_window")
    tags = {**request.tags, "babylon/line": "window", "dagster/partition": FIRST}
    run = loop.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert loop.said() == f"the line is running: {FIRST} in run {run.run_id[:8]}"
    loop.instance.report_run_canceled(run)
    assert "tried again in a while" in loop.said()


def test_a_run_whose_process_is_gone_is_failed_before_anything_is_launched(loop: Loop, tmp_path: Path) -> None:
    loop.play(FIRST)
    gone = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": str(tmp_path / "gone")})}
    line = loop.definitions.resolve_job_def("train_window")
    run = loop.instance.create_run_for_job(line, tags=gone, status=dg.DagsterRunStatus.STARTED)
    assert loop.said() == f"failed the runs {run.run_id}, whose processes were gone"
    assert loop.asked().partition_key == FIRST


def test_a_window_that_was_killed_between_training_and_the_gate_is_run_again(loop: Loop) -> None:
    loop.play(FIRST)
    loop.play(SECOND)
    frozen = dataset(sample(0, window=FIRST), window=FIRST)
    made = checkpoint(1, FIRST, frozen.id)
    with loop.database.connect() as conn:
        insert_checkpoint(conn, root())
        save_dataset(conn, frozen)
        insert_checkpoint(conn, made)
        upsert_window(conn, FIRST, status="trained", dataset_id=frozen.id)
        upsert_window(conn, SECOND, status="thin")
    loop.cursors["closed_windows"] = SECOND
    assert loop.asked().partition_key == FIRST
    with loop.database.connect() as conn:
        promote(conn, made, by="gate", why="it is no worse")
    assert loop.said().startswith("no window waits")


def test_a_window_that_fails_for_good_is_left_and_the_loop_goes_on(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.play(FIRST)
    loop.play(THIRD)
    request = loop.asked()
    monkeypatch.setattr("babylon_assets.orchestration.assets.raw_trajectories.copy_window", broken)
    assert not loop.run(request).success
    monkeypatch.undo()
    assert loop.status(FIRST) == "failed"
    assert loop.asked().partition_key == THIRD
    loop.execute('UPDATE public."trajectories" SET "updatedAt" = now() WHERE "windowId" = %s', FIRST)
    again = loop.asked()
    assert again.partition_key == FIRST
    assert again.run_key != request.run_key


def test_windows_that_stay_failed_are_listed_by_the_clock(loop: Loop) -> None:
    def look() -> tuple[bool, str]:
        job = loop.definitions.resolve_job_def("look_for_failures")
        result = job.execute_in_process(instance=loop.instance, run_config=QUIET)
        [found] = result.get_asset_check_evaluations()
        listed = found.metadata.get("failed_windows")
        return found.passed, str(listed.value) if listed else ""

    assert look() == (True, "")
    with loop.database.connect() as conn:
        upsert_window(conn, FIRST, status="failed", reason="a | broken\nrow")
        upsert_window(conn, SECOND, status="thin")
    passed, listed = look()
    assert not passed
    assert f"| {FIRST} | `a \\| broken row` |" in listed
    assert SECOND not in listed


def test_a_run_that_died_is_tried_again_later_and_not_for_ever(loop: Loop) -> None:
    loop.play(FIRST)
    start = datetime.now(UTC)

    def tried(count: int, minutes: float) -> window_queue.NextWindows:
        before = window_queue.Attempts(count, start)
        return window_queue.next_windows(loop.installation, start + timedelta(minutes=minutes), None, lambda *_: before)

    assert tried(1, 1.9).windows == []
    assert (tried(1, 2).windows, tried(1, 2).attempt) == ([FIRST], 2)
    assert tried(2, 3.9).windows == []
    assert (tried(2, 4).windows, tried(2, 4).attempt) == ([FIRST], 3)
    assert tried(3, 1000).windows == []
    assert "stay failed" in tried(3, 1000).notes


def test_a_database_without_the_game_is_said_and_nothing_fails(loop: Loop) -> None:
    loop.execute('DROP TABLE public."market_outcomes"')
    assert '"market_outcomes" is missing' in loop.said()
    assert '"market_outcomes" is missing' in loop.said("changed_windows")


LEAVE_OUT = 'UPDATE public."trajectories" SET "isTrainingData" = false WHERE id = %s'


def test_a_window_whose_rows_changed_is_read_again_once(loop: Loop) -> None:
    loop.play(FIRST)
    assert loop.run(loop.asked()).success
    assert loop.said("changed_windows").startswith("no change")
    loop.execute(LEAVE_OUT, f"{FIRST}-agent-0")
    request = loop.asked("changed_windows")
    assert request.partition_key == FIRST
    result = loop.run(request, "refresh_window")
    assert result.success
    assert [entry.message for entry in loop.instance.all_logs(result.run_id) if "did not yield" in entry.message] == []
    assert loop.said("changed_windows").startswith("no change")


def test_a_window_whose_source_changed_and_whose_rows_and_scores_did_not_costs_no_run(loop: Loop) -> None:
    loop.play(FIRST)
    assert loop.run(loop.asked()).success
    later = HOURLY.bounds(FIRST)[1] + timedelta(minutes=30)
    late = trade("t", agentUserId="agent-0", executedAt=later)
    with loop.database.connect() as conn:  # within the horizon of the window's own trades, and none of them
        copy_rows(conn, "AgentTrade", [late])
    said = loop.said("changed_windows")
    assert said.startswith("no change") and said.endswith(f"; {FIRST}: other source, same rows and scores")
    assert loop.said("changed_windows").endswith("before now")
    assert loop.instance.get_runs_count() == 1


def test_of_changed_windows_the_oldest_run_first_and_those_that_follow_it_with_it(loop: Loop) -> None:
    for window in (FIRST, SECOND, FOURTH):
        loop.play(window)
    for _ in range(2):
        assert loop.run(loop.asked()).success
    for window in (FIRST, SECOND, FOURTH):
        loop.execute(LEAVE_OUT, f"{window}-agent-0")
    request = loop.asked("changed_windows")
    assert (request.partition_key, sensors.windows_of(request.tags)) == (None, f"{FIRST} to {SECOND}")
    job = loop.definitions.resolve_job_def("refresh_window")
    tags = {**request.tags, "babylon/line": "window"}
    run = loop.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert loop.said("changed_windows").startswith("the line is running")
    loop.instance.report_run_canceled(run)  # one that did not do it is left alone, the others have their turn
    assert loop.asked("changed_windows").partition_key == SECOND


def test_the_changed_are_looked_for_in_all_windows_in_turns(loop: Loop) -> None:
    for window in (FIRST, SECOND, THIRD):
        with loop.database.connect() as conn:
            upsert_window(conn, window, status="thin", fingerprint="another")

    def look(cursor: str | None, tried: set[str]) -> tuple[list[str], str | None]:
        plan = window_queue.changed_windows(loop.installation, cursor, 2, lambda window, _: window in tried)
        return plan.windows, plan.cursor

    loop.play(FIRST)
    loop.play(THIRD)
    assert look(None, set()) == ([THIRD], None)  # the second has no row, and none is kept of it
    assert look(None, {THIRD}) == ([], SECOND)
    assert look(SECOND, {THIRD}) == ([FIRST], SECOND)
    assert look(SECOND, {FIRST, THIRD}) == ([], None)


def test_among_a_year_of_windows_the_one_that_was_played_is_asked_for(loop: Loop) -> None:
    loop.execute(
        """INSERT INTO babylon_training.windows (window_id, status, fingerprint)
           SELECT to_char(%s::timestamp - n * interval '1 hour', 'YYYY-MM-DD"T"HH24":00"'), 'thin', 'f'
           FROM generate_series(1, 8760) AS n""",
        FIRST,
    )
    loop.play(FIRST)
    assert loop.asked().partition_key == FIRST


@pytest.mark.parametrize(("automation", "status"), [(True, "RUNNING"), (False, "STOPPED")])
def test_the_sensors_run_by_themselves_unless_told_otherwise(automation: bool, status: str) -> None:
    """What the game asks for is looked for whatever AUTOMATION is: TRAIN_REQUESTS asks for it."""
    found = list(build_definitions(Settings(automation=automation, train_requests=True)).sensors or ())
    requested = [each for each in found if each.name == "requested_windows"]
    assert [each.default_status.value for each in requested] == ["RUNNING"]
    assert {each.default_status.value for each in found if each not in requested} == {status}
    assert len(found) == 4


def test_what_is_only_shown_of_the_games_tables_costs_no_run(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.play(FIRST)
    monkeypatch.setattr(type(loop.installation.environment), "presence", broken)
    result = loop.tick("closed_windows")
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == [FIRST]
    assert not result.asset_events
