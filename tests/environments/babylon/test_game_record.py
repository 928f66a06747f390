"""Reading the game's record from real tables: windows, rows good and bad, and with SELECT alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.environments.babylon import game_record, game_tables, outcome_tables, schema
from babylon_assets.environments.babylon.details import steps_frame
from babylon_assets.environments.base import SourceWindow
from babylon_assets.environments.simulated.environment import SimulatedEnvironment
from tests.domain.rows import START, WINDOW, call, step
from tests.environments.babylon.rows import Connection, add_trajectories, add_users, read, trajectory

HOUR = timedelta(hours=1)
NEXT_WINDOW = "2026-10-01T01:00"


class TestCheckTables:
    def test_the_games_tables_pass(self, game_conn: Connection) -> None:
        schema.check_tables(game_conn)

    def test_what_is_missing_is_named_all_at_once(self, game_conn: Connection) -> None:
        game_conn.execute('DROP TABLE public."StockPrice"; ALTER TABLE public.trajectories DROP COLUMN "windowId"')
        with pytest.raises(SourceError, match=r'"trajectories"."windowId" is missing; table "StockPrice" is missing'):
            schema.check_tables(game_conn)

    def test_an_empty_database_says_what_to_do(self, conn: Connection) -> None:
        with pytest.raises(SourceError, match="DATABASE_URL"):
            schema.check_tables(conn)

    def test_what_may_not_be_read_is_named(self, game_conn: Connection) -> None:
        with (
            as_role(game_conn, "GRANT SELECT ON public.trajectories TO {}"),
            pytest.raises(SourceError, match=r'"AgentTrade"."id" may not be read'),
        ):
            schema.check_tables(game_conn)


class TestWindows:
    def test_rows_without_a_window_count_for_the_hour_in_which_they_ended(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1", "a2")
        add_trajectories(
            game_conn,
            trajectory("t1"),
            trajectory("t2"),
            trajectory("t3", agentId="a2", windowId=None, startTime=START - HOUR),
            trajectory("t4", agentId="a1", windowId=None, endTime=START + HOUR),
            trajectory("t5", windowId="not a window"),
        )
        assert game_record.list_windows(game_conn) == [SourceWindow(WINDOW, 2, 4), SourceWindow(NEXT_WINDOW, 1, 1)]
        assert read(game_conn).keys() == {"t1", "t2", "t3", "t5"}
        assert read(game_conn, NEXT_WINDOW).keys() == {"t4"}

    ODD = ("benchmark-7", "2026-10-01T00:00Z", "2026-13-01T00:00", "2026-10-01T24:00", "2026-02-30T01:00", "", "17")

    def test_a_row_whose_id_is_no_window_belongs_to_the_hour_in_which_it_ended_and_to_no_other(
        self, game_conn: Connection
    ) -> None:
        add_users(game_conn, "a1")
        late = {"endTime": START + HOUR}
        for number, odd in enumerate(self.ODD):
            add_trajectories(
                game_conn,
                trajectory(f"now-{number}", windowId=odd),
                trajectory(f"next-{number}", windowId=odd, **late),
            )
        add_trajectories(game_conn, trajectory("t1"), trajectory("t2", windowId=None))
        assert game_record.odd_ids(game_conn) == sorted(self.ODD)
        assert game_record.count_odd_ids(game_conn) == dict.fromkeys(self.ODD, 2)
        count = len(self.ODD)
        assert game_record.list_windows(game_conn) == [
            SourceWindow(WINDOW, 1, count + 2),
            SourceWindow(NEXT_WINDOW, 1, count),
        ]
        assert read(game_conn).keys() == {"t1", "t2", *(f"now-{n}" for n in range(count))}
        assert read(game_conn, NEXT_WINDOW).keys() == {f"next-{n}" for n in range(count)}

    def test_a_look_at_the_latest_windows_sees_odd_ids_that_are_not_among_old_ones(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        ids = ["", "17", "2026-09-01T00:00", "2026-09-01T00:30", "2026-10-01T00:30", "zzz"]
        add_trajectories(game_conn, *(trajectory(f"t{n}", windowId=each) for n, each in enumerate(ids)))
        assert game_record.odd_ids(game_conn, WINDOW) == ["", "17", "2026-10-01T00:30", "zzz"]
        assert game_record.list_windows(game_conn, WINDOW) == [SourceWindow(WINDOW, 1, 4)]
        assert game_record.odd_ids(game_conn) == ["", "17", "2026-09-01T00:30", "2026-10-01T00:30", "zzz"]

    def test_a_row_with_an_odd_id_shows_in_its_windows_fingerprint(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        before = game_record.fingerprint(game_conn, WINDOW)
        add_trajectories(game_conn, trajectory("t1", windowId="benchmark-7"))
        assert game_record.fingerprint(game_conn, WINDOW) != before

    def test_windows_from_one_on(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        later = {"endTime": START + HOUR, "startTime": START + HOUR}
        add_trajectories(
            game_conn,
            trajectory("t1"),
            trajectory("t2", windowId=None),
            trajectory("t3", windowId=NEXT_WINDOW, **later),
            trajectory("t4", windowId=None, **later),
        )
        assert game_record.list_windows(game_conn, NEXT_WINDOW) == [SourceWindow(NEXT_WINDOW, 1, 2)]
        assert game_record.list_windows(game_conn, WINDOW) == game_record.list_windows(game_conn)

    def test_a_row_with_a_window_belongs_to_it_whenever_it_ended(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, trajectory("t1", startTime=START - HOUR, endTime=START + HOUR, scenarioId="x"))
        assert read(game_conn).keys() == {"t1"}
        assert read(game_conn, NEXT_WINDOW) == {}

    def test_the_hour_of_an_end_does_not_depend_on_the_session(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, trajectory("t1", windowId=None))
        game_conn.execute("SET TimeZone TO 'Asia/Tokyo'; SET DateStyle TO 'German'")
        assert game_record.list_windows(game_conn) == [SourceWindow(WINDOW, 1, 1)]
        row = read(game_conn)["t1"]
        assert isinstance(row, TrajectoryRecord)
        assert row.start_time == START

    def test_windows_of_another_length_hold_what_ended_in_them_whatever_its_id(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1", "a2")
        quarter, midnight = timedelta(minutes=15), START.replace(minute=0)
        add_trajectories(
            game_conn,
            trajectory("t1", endTime=midnight + quarter - timedelta(seconds=1)),
            trajectory("t2", agentId="a2", endTime=midnight + quarter),
            trajectory("t3", windowId=None, endTime=midnight + quarter),
            trajectory("t4", windowId="not a window", endTime=midnight + 5 * quarter),
            trajectory("t5", endTime=midnight + 96 * quarter),
        )
        quarters, days = WindowGrid(quarter), WindowGrid(96 * quarter)
        assert game_record.odd_ids(game_conn, windows=quarters) == []
        assert game_record.list_windows(game_conn, windows=days) == [
            SourceWindow("2026-10-01T00:00", 2, 4),
            SourceWindow("2026-10-02T00:00", 1, 1),
        ]
        listed = game_record.list_windows(game_conn, "2026-10-01T00:15", windows=quarters)
        assert [(row.window, row.agents, row.trajectories) for row in listed] == [
            ("2026-10-01T00:15", 2, 2),
            ("2026-10-01T01:15", 1, 1),
            ("2026-10-02T00:00", 1, 1),
        ]
        assert read(game_conn, windows=quarters).keys() == {"t1"}
        assert read(game_conn, "2026-10-01T00:15", windows=quarters).keys() == {"t2", "t3"}
        assert read(game_conn, windows=days).keys() == {"t1", "t2", "t3", "t4"}
        before = game_record.fingerprint(game_conn, "2026-10-01T00:15", windows=quarters)
        add_trajectories(game_conn, trajectory("t6", endTime=midnight + quarter))
        assert game_record.fingerprint(game_conn, "2026-10-01T00:15", windows=quarters) != before

    def test_an_empty_game(self, game_conn: Connection) -> None:
        assert game_record.list_windows(game_conn) == []
        assert read(game_conn) == {}


class TestReadWindow:
    def test_a_row_comes_back_whole(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, trajectory("t1", [step(0), step(1)], finalPnL=None))
        row = read(game_conn)["t1"]
        assert isinstance(row, TrajectoryRecord)
        assert (row.window, row.agent_id, row.scenario_id, row.shape) == (WINDOW, "a1", WINDOW, "full")
        assert (row.start_time, row.end_time) == (START, START + timedelta(minutes=10))
        assert (row.final_status, row.final_balance, row.final_pnl) == ("completed", 1000.0, None)
        assert ([f.step for f in row.facts], [s.response for s in row.samples]) == ([0, 1], [call()["response"]] * 2)

    def test_the_flags_of_rows_and_users_are_honoured(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_users(game_conn, "test", isTest=True)
        add_users(game_conn, "banned", isBanned=True)
        add_trajectories(
            game_conn,
            trajectory("t1"),
            trajectory("used", usedInTraining=True),
            trajectory("evaluation", isEvaluation=True),
            trajectory("other", isTrainingData=False),
            trajectory("test", agentId="test"),
            trajectory("banned", agentId="banned"),
        )
        assert read(game_conn).keys() == {"t1", "used"}
        assert read(game_conn, include_test=True).keys() == {"t1", "used", "test"}
        assert read(game_conn, include_test=True, include_banned=True).keys() == {"t1", "used", "test", "banned"}

    def test_one_bad_row_costs_one_row(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        bad: dict[str, Any] = {
            "truncated": json.dumps([step()])[:-30],
            "object": {},
            "null action": [step(action=None)],
            "not json": "",
        }
        good: dict[str, Any] = {
            "live": [step(llmCalls=[])],
            "deep": '[{"action":{"actionType":"x"},"z":' + "[" * 5000 + "]" * 5000 + "}]",
            "empty": [],
            "null step": [step(), None],
            "text state": [step(environmentState="x")],
            "surrogate": '[{"action":{"actionType":"\\ud800"}}]',
            "null pnl": [step(environmentState={"agentPnL": None, "agentBalance": None})],
            "numerals": [step(environmentState={"agentPnL": "5.5", "agentBalance": "1e3"})],
            "nan": [step(environmentState={"agentPnL": float("nan")})],
            "bad behaviour": [step(action={"actionType": "INVALID_ACTION", "success": False, "error": "not JSON"})],
            "unknown keys": [step(stepId="s", observation={"x": [1]}, done=True, attemptId="7")],
        }
        add_trajectories(game_conn, *(trajectory(name, steps) for name, steps in (bad | good).items()))
        rows = read(game_conn)
        assert {name for name, row in rows.items() if isinstance(row, Quarantined)} == bad.keys()
        assert {name for name, row in rows.items() if isinstance(row, TrajectoryRecord)} == good.keys()
        assert all(row.reason and row.place for row in rows.values() if isinstance(row, Quarantined))

    def test_texts_that_the_steps_lack_are_those_of_the_games_log(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        silent = [step(0, llmCalls=[]), step(1, llmCalls=[], stepId="uuid-1"), step(2, llmCalls=None)]
        add_trajectories(
            game_conn, trajectory("t1", stepsJson=json.dumps(silent)), trajectory("t2", stepsJson=json.dumps([step(0)]))
        )
        messages = '[{"role":"user","content":"look \\ud83d"}]'  # the half of an emoji that a limit cut
        logged = [
            logged_call("t1", "t1-step-0", 0, response="refused"),
            logged_call("t1", "t1-step-0", 1, response="buy"),
            logged_call("t1", "uuid-1", 2, response="", messagesJson=messages),
            logged_call("t1", "t1-step-9", 3),
            logged_call("t2", "t2-step-0", 4, response="another"),
        ]
        game_tables.copy_rows(game_conn, "llm_call_logs", logged)
        rows = read(game_conn, WINDOW)
        record = rows["t1"]
        assert isinstance(record, TrajectoryRecord) and record.shape == "logger"
        assert [(raw.step, raw.call, raw.call_id, raw.response, raw.refused) for raw in record.samples] == [
            (0, 0, "c0", "refused", True),
            (0, 1, "c1", "buy", False),
            (1, 0, "c2", "", False),
        ]
        assert [message.content for message in record.samples[1].messages] == ["S", "P"]
        assert [message.content for message in record.samples[2].messages] == ["look \ufffd"]
        assert record.dropped == {"logged calls of no step": 1}
        other = rows["t2"]
        assert isinstance(other, TrajectoryRecord)
        assert [raw.response for raw in other.samples] == ['{"action":"buy_yes"}']
        assert schema.look_at_schema(game_conn).losses() == LOSSES_OF_2025
        assert "without" not in SimulatedEnvironment(Settings()).describe_record(game_conn)  # it never has them
        game_conn.execute("DROP TABLE public.llm_call_logs")
        left = [row for row in read(game_conn, WINDOW).values() if isinstance(row, TrajectoryRecord)]
        assert sorted(len(row.samples) for row in left) == [0, 1]

    def test_numbers_and_times_beyond_reason(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, trajectory("t1", finalPnL=float("nan"), finalBalance=float("inf")))
        game_conn.execute("""UPDATE public.trajectories SET "startTime" = '-infinity', "endTime" = 'infinity'""")
        row = read(game_conn)["t1"]
        assert isinstance(row, TrajectoryRecord)
        assert (row.final_pnl, row.final_balance, row.start_time.year, row.end_time.year) == (None, None, 1, 9999)

    def test_a_reader_that_stops_early_leaves_the_connection_usable(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, *(trajectory(f"t{n}", [step(pad="x" * 20_000)]) for n in range(200)))
        game_conn.commit()
        rows = game_record.read_window(game_conn, WINDOW)
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        game_conn.rollback()
        assert len(read(game_conn)) == 200


#: Tables that the game of 2025 did not have.
LOSSES_OF_2025 = [
    "without PerpMarketSnapshot tickers are found by the companies' own names and by positions alone",
    "without UserAgentConfig the agents' teams are not known",
]


def logged_call(trajectory_id: str, step_id: str, number: int, **changes: Any) -> dict[str, Any]:
    """A row of the game's `llm_call_logs`."""
    fields: dict[str, Any] = {
        "id": f"l{number}",
        "trajectoryId": trajectory_id,
        "stepId": step_id,
        "callId": f"c{number}",
        "timestamp": START + timedelta(seconds=number),
        "model": "m",
        "purpose": "action",
        "systemPrompt": "S",
        "userPrompt": "P",
        "response": "hold",
        "temperature": 0.7,
        "maxTokens": 1000,
    }
    return {**fields, **changes}


@contextmanager
def as_role(conn: Connection, *grants: str) -> Iterator[None]:
    """Runs the block as a new role that has the grants and nothing else; the transaction is never committed."""
    for statement in ("CREATE ROLE {}", *grants, "SET ROLE {}"):
        conn.execute(sql.SQL(statement).format(sql.Identifier("babylon_reader_of_tests")))
    yield


def test_select_on_what_is_read_is_enough(game_conn: Connection) -> None:
    add_users(game_conn, "a1")
    add_trajectories(game_conn, trajectory("t1"))
    tables = [table for table, needed in schema.BABYLON_GAME.tables.items() if not needed.cost]
    grants = [f'GRANT SELECT ON public."{table}" TO {{}}' for table in tables]
    with as_role(game_conn, "GRANT USAGE ON SCHEMA public TO {}", *grants):
        schema.check_tables(game_conn)
        assert [window.window for window in game_record.list_windows(game_conn)] == [WINDOW]
        rows = [row for row in read(game_conn).values() if isinstance(row, TrajectoryRecord)]
        outcome_tables.read_outcomes(game_conn, WINDOW, steps_frame(rows))
        assert len(game_record.fingerprint(game_conn, WINDOW)) == 64
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            game_conn.execute("DELETE FROM public.trajectories")
