"""Which changes of the game's record show in a window's fingerprint, and which do not."""

from __future__ import annotations

import pytest

from babylon_assets.environments.babylon import game_record
from babylon_assets.environments.babylon.game_tables import copy_rows
from tests.domain.rows import WINDOW
from tests.environments.babylon.rows import (
    Connection,
    add_trajectories,
    add_users,
    market,
    organization,
    quote,
    trade,
    trajectory,
)


class TestFingerprint:
    @pytest.fixture
    def game(self, game_conn: Connection) -> Connection:
        add_users(game_conn, "a1", "a2")
        add_trajectories(game_conn, trajectory("t1"), trajectory("t2", agentId="a2"))
        copy_rows(game_conn, "Market", [market("m1"), market("elsewhere")])
        note = {"id": "o", "windowId": WINDOW, "predictionMarketId": "m1", "outcome": "UNRESOLVED"}
        copy_rows(game_conn, "market_outcomes", [note])
        copy_rows(game_conn, "AgentTrade", [trade("x1"), trade("x2", marketType="perp", marketId=None, ticker="ACME")])
        copy_rows(game_conn, "Organization", [organization("ACME"), organization("BOLT")])
        quotes = [quote("q-1", 0.2, -700), quote("q0", 0.3, -600), quote("q1", 0.4, 0)]
        copy_rows(game_conn, "PredictionPriceHistory", [*quotes, quote("other", 0.5, 0, "elsewhere")])
        return game_conn

    def test_the_same_rows_give_the_same_whatever_the_session(self, game: Connection) -> None:
        before = game_record.fingerprint(game, WINDOW)
        game.execute("SET TimeZone TO 'Asia/Tokyo'; SET DateStyle TO 'German'; SET extra_float_digits TO 3")
        assert game_record.fingerprint(game, WINDOW) == before

    @pytest.mark.parametrize(
        "change",
        [
            """UPDATE public.trajectories SET "updatedAt" = "updatedAt" + interval '1 ms' WHERE id = 'row-t1'""",
            """UPDATE public.trajectories SET "stepsJson" = "stepsJson" || ' ' WHERE id = 'row-t1'""",
            """UPDATE public.trajectories SET "isEvaluation" = true WHERE id = 'row-t1'""",
            "DELETE FROM public.trajectories WHERE id = 'row-t2'",
            """UPDATE public."User" SET "isBanned" = true WHERE id = 'a2'""",
            """UPDATE public."Market" SET resolved = true, resolution = false WHERE id = 'm1'""",
            """UPDATE public."AgentTrade" SET price = 0.41 WHERE id = 'x1'""",
            """DELETE FROM public."AgentTrade" WHERE id = 'x2'""",
            """INSERT INTO public."StockPrice" VALUES ('p', 'ACME', 101, 1, 1, '2026-10-01 02:30')""",
            """INSERT INTO public.market_outcomes (id, "windowId", "predictionMarketId", outcome)
               VALUES ('late', '2026-10-01T05:00', 'm1', 'YES')""",
            "UPDATE public.market_outcomes SET outcome = 'YES'",
            """UPDATE public."PredictionPriceHistory" SET "noPrice" = 0.65 WHERE id = 'q1'""",
            """UPDATE public."PredictionPriceHistory" SET "yesPrice" = 0.45 WHERE id = 'q0'""",
            """INSERT INTO public."PredictionPriceHistory" SELECT 'q2', "marketId", "yesPrice", "noPrice", "yesShares",
               "noShares", liquidity, "eventType", source, '2026-10-01 00:30' FROM public."PredictionPriceHistory"
               WHERE id = 'q1'""",
        ],
    )
    def test_a_change_that_matters_shows(self, game: Connection, change: str) -> None:
        before = game_record.fingerprint(game, WINDOW)
        game.execute(change.encode())
        assert game_record.fingerprint(game, WINDOW) != before

    @pytest.mark.parametrize(
        "change",
        [
            """UPDATE public.trajectories SET "usedInTraining" = true""",
            """UPDATE public."Market" SET resolved = true WHERE id = 'elsewhere'""",
            """INSERT INTO public."StockPrice" VALUES ('p', 'BOLT', 101, 1, 1, '2026-10-01 00:30')""",
            """INSERT INTO public."StockPrice" VALUES ('p', 'ACME', 101, 1, 1, '2026-10-01 09:00')""",
            """UPDATE public."PredictionPriceHistory" SET "yesPrice" = 0.1 WHERE id IN ('q-1', 'other')""",
        ],
    )
    def test_a_change_that_does_not_matter_does_not(self, game: Connection, change: str) -> None:
        before = game_record.fingerprint(game, WINDOW)
        game.execute(change.encode())
        assert game_record.fingerprint(game, WINDOW) == before

    @pytest.mark.parametrize(
        "change",
        [
            """UPDATE public."Market" SET resolved = true WHERE id = 'elsewhere'""",
            """UPDATE public."PredictionPriceHistory" SET "yesPrice" = 0.1 WHERE id = 'other'""",
            """INSERT INTO public."StockPrice" VALUES ('p', 'BOLT', 101, 1, 1, '2026-10-01 00:30')""",
        ],
    )
    def test_what_a_step_names_and_no_trade_can_be_added(self, game: Connection, change: str) -> None:
        before = game_record.fingerprint(game, WINDOW, instruments=["elsewhere", "BOLT"])
        game.execute(change.encode())
        assert game_record.fingerprint(game, WINDOW, instruments=["elsewhere", "BOLT"]) != before

    def test_another_way_of_decoding_shows(self, game: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        before = game_record.fingerprint(game, WINDOW)
        monkeypatch.setattr("babylon_assets.environments.babylon.decoding.VERSION", "next")
        assert game_record.fingerprint(game, WINDOW) != before
