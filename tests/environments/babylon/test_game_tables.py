"""The game's tables as its own migrations leave them, and rows written to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.errors import SourceError
from babylon_assets.environments.babylon.game_tables import INDEXES, TABLES, copy_rows, create_game_tables
from tests.domain.rows import START
from tests.environments.babylon.rows import Connection, add_trajectories, add_users, trajectory


def _columns(conn: Connection, table: str) -> dict[str, tuple[Any, ...]]:
    query = """
        SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale, datetime_precision,
               is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s"""
    return {name: facts for name, *facts in conn.execute(query, (table,))}


class TestTables:
    def test_they_are_created_once_and_the_second_time_changes_nothing(self, game_conn: Connection) -> None:
        query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        before = game_conn.execute(query).fetchone()
        create_game_tables(game_conn)
        assert game_conn.execute(query).fetchone() == before
        tables = {row[0] for row in game_conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        assert tables == set(TABLES)

    @pytest.mark.parametrize(
        ("table", "column", "expected"),
        [
            ("trajectories", "windowId", ["character varying", 50, None, None, None, "YES", None]),
            ("trajectories", "stepsJson", ["text", None, None, None, None, "NO", None]),
            ("trajectories", "endTime", ["timestamp without time zone", None, None, None, 3, "NO", None]),
            ("trajectories", "updatedAt", ["timestamp without time zone", None, None, None, 3, "NO", None]),
            ("trajectories", "finalPnL", ["double precision", None, 53, None, None, "YES", None]),
            ("trajectories", "isTrainingData", ["boolean", None, None, None, None, "NO", "true"]),
            ("User", "virtualBalance", ["numeric", None, 18, 2, None, "NO", "1000"]),
            ("Market", "resolution", ["boolean", None, None, None, None, "YES", None]),
            ("Market", "liquidity", ["numeric", None, 18, 6, None, "NO", None]),
            ("market_outcomes", "finalProbability", ["numeric", None, 5, 4, None, "YES", None]),
            ("market_outcomes", "newsEvents", ["jsonb", None, None, None, None, "YES", None]),
            ("trained_models", "evalMetrics", ["jsonb", None, None, None, None, "YES", None]),
            (
                "AgentTrade",
                "executedAt",
                ["timestamp without time zone", None, None, None, 3, "NO", "CURRENT_TIMESTAMP"],
            ),
        ],
    )
    def test_columns(self, game_conn: Connection, table: str, column: str, expected: list[Any]) -> None:
        assert list(_columns(game_conn, table)[column]) == expected

    def test_no_table_has_a_default_for_its_id_or_its_update_time(self, game_conn: Connection) -> None:
        for table in TABLES:
            columns = _columns(game_conn, table)
            for name in ("id", "updatedAt"):
                if name in columns:
                    assert list(columns[name][-2:]) == ["NO", None]

    def test_indexes_are_there_by_the_games_names(self, game_conn: Connection) -> None:
        names = {row[0] for row in game_conn.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}
        assert {"trajectories_windowId_agentId_idx", "trajectories_trajectoryId_key", "AgentTrade_ticker_idx"} < names
        assert len(names) == len(INDEXES) + len(TABLES)

    def test_a_trajectory_needs_its_agent_and_goes_with_it(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        add_trajectories(game_conn, trajectory("t1"))
        game_conn.execute("""DELETE FROM public."User" WHERE id = 'a1'""")
        assert game_conn.execute("SELECT count(*) FROM public.trajectories").fetchone() == (0,)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            add_trajectories(game_conn, trajectory("t1"))


class TestCopyRows:
    def test_columns_that_are_left_out_take_their_defaults_row_by_row(self, game_conn: Connection) -> None:
        add_users(game_conn, "a1")
        rows = [trajectory("t1"), trajectory("t2", isTrainingData=False, windowId=None)]
        add_trajectories(game_conn, *rows)
        query = (
            """SELECT "trajectoryId", "isTrainingData", "windowId", "windowHours" FROM public.trajectories ORDER BY 1"""
        )
        assert game_conn.execute(query).fetchall() == [("t1", True, "2026-10-01T00:00", 1), ("t2", False, None, 1)]

    def test_an_aware_time_is_stored_as_utc_whatever_its_zone(self, game_conn: Connection) -> None:
        there = START.astimezone(timezone(timedelta(hours=5)))
        game_conn.execute("SET TimeZone TO 'America/New_York'")
        copy_rows(game_conn, "User", [{"id": "a1", "createdAt": there, "updatedAt": START}])
        stored = game_conn.execute("""SELECT "createdAt", "updatedAt" FROM public."User" """).fetchone()
        assert stored == (datetime(2026, 10, 1, 0, 5), datetime(2026, 10, 1, 0, 5))
        assert stored[0].replace(tzinfo=UTC) == START

    def test_json_and_numbers_of_every_kind(self, game_conn: Connection) -> None:
        row = {"id": "o1", "windowId": "2026-10-01T00:00", "stockTicker": "ACME", "changePercent": -1.25}
        copy_rows(game_conn, "market_outcomes", [row | {"newsEvents": '[{"a": "é\\n"}]'}])
        query = """SELECT "changePercent"::float8, "newsEvents" FROM public.market_outcomes"""
        assert game_conn.execute(query).fetchall() == [(-1.25, [{"a": "é\n"}])]

    def test_no_rows_is_nothing_and_another_table_is_refused(self, game_conn: Connection) -> None:
        copy_rows(game_conn, "User", [])
        with pytest.raises(SourceError, match="pg_authid"):
            copy_rows(game_conn, "pg_authid", [{"rolname": "x"}])
