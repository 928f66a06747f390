"""Answers to recorded prompts: read as the game reads them, and valued by its record as if nobody had moved a price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.trajectories import StepFacts
from babylon_assets.environments.babylon.answer_reader import GameAnswers
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.evaluation.recorded_prompts import AnsweredStep
from babylon_assets.ledger.database import Database
from tests.environments.feed.game import Feed
from tests.environments.feed.hour import WINDOW, at, play_hour
from tests.environments.feed.tables import create_feed_tables, insert_rows

Connection = psycopg.Connection[Any]
LONG_ID = "733333333333333312"


@pytest.fixture(scope="module")
def hour() -> Feed:
    return play_hour()


@pytest.fixture
def conn(database: Database, hour: Feed) -> Iterator[Connection]:
    with database.connect() as connection:
        create_feed_tables(connection)
        hour.write(connection)
        market = dict(hour.rows["Market"][0], id=LONG_ID, question="Will the mayor resign?", resolved=False)
        insert_rows(connection, "Market", [market])
        yield connection


@pytest.fixture
def reader() -> GameAnswers:
    return GameAnswers(FeedEnvironment(Settings()))


def recorded_step(moment: datetime) -> StepFacts:
    milliseconds = int(moment.timestamp() * 1000)
    return make_step(
        0, milliseconds, milliseconds, 950.0, -3.1, "COMMENT", None, None, None, None, None, True, None, False
    )


def trade(side: str, market: str, kind: str = "prediction", **more: Any) -> str:
    parameters = {"marketType": kind, "marketId": market, "side": side, **more}
    return json.dumps({"thought": "t", "action": "TRADE", "parameters": parameters, "isFinish": False})


def value(
    conn: Connection, reader: GameAnswers, text: str, moment: datetime, agent: str = "31001"
) -> tuple[float | None, str]:
    step = reader.parse(text, [], recorded_step(moment))
    frame = steps_frame([AnsweredStep(WINDOW, "t", agent, [step])], FeedEnvironment.detail)
    [row] = reader.value(conn, WINDOW, frame).to_dict("records")
    return (None if pd.isna(row["worth"]) else float(row["worth"]), str(row["state"]))


@pytest.mark.parametrize(
    ("text", "kind", "valid"),
    [
        ('{"action":"FINISH","parameters":{}}', "FINISH", True),
        ('<think>{"action":"POST"}</think>```json\n{"action":"WAIT"}\n```', "WAIT", True),
        ('{"action":"POST","parameters":{"content":"hi"}} and more {', "POST", True),
        (trade("buy_yes", "41001"), "TRADE", True),
        (trade("buy_maybe", "41001"), "TRADE", False),
        ('{"action":"TRADE","parameters":{"side":"buy_yes"}}', "TRADE", False),
        ('{"action":"DANCE"}', "DANCE", False),
        ('{"action":"TRADE","parameters":{"marketTy', "none", False),
        ("I would rather wait.", "none", False),
        ("[1]", "none", False),
        ('{"action":7}', "none", False),
    ],
)
def test_an_answer_is_read_as_the_game_reads_it(reader: GameAnswers, text: str, kind: str, valid: bool) -> None:
    step = reader.parse(text, [], recorded_step(at(30)))
    assert (step.action_type, not step.invalid) == (kind, valid)
    assert step.timestamp_ms == recorded_step(at(30)).timestamp_ms


class TestBets:
    def test_a_right_bet_shares_what_the_losers_lost_and_a_wrong_one_is_lost(
        self, conn: Connection, reader: GameAnswers, hour: Feed
    ) -> None:
        moment = at(30)
        quotes = [
            q for q in hour.rows["PredictionPriceHistory"] if q["marketId"] == "41001" and q["createdAt"] < moment
        ]
        likely = max(quotes, key=lambda q: q["createdAt"])["yesPrice"]
        positions = [p for p in hour.rows["Position"] if p["marketId"] == "41001"]
        winners = sum(p["shares"] for p in positions if p["side"])
        lost = sum(p["shares"] * p["avgPrice"] for p in positions if not p["side"])
        odds = likely / (1 - likely)
        expected = min(1.0, 0.999 * (1 + lost / winners / odds) - 1)
        for amount in (50, "50", 0, None):
            worth, state = value(conn, reader, trade("buy_yes", "41001", amount=amount), moment)
            assert state == "final"
            assert worth == pytest.approx(expected, abs=1e-6)  # the game keeps positions to six places
        assert value(conn, reader, trade("buy_no", "41001", amount=50), moment) == (-1.0, "final")

    def test_what_the_record_does_not_say_is_not_made_up(self, conn: Connection, reader: GameAnswers) -> None:
        assert value(conn, reader, trade("buy_yes", "41003"), at(30)) == (None, "unknown")  # cancelled
        assert value(conn, reader, trade("buy_yes", "41004"), at(30)) == (None, "pending")
        assert value(conn, reader, trade("buy_yes", "41001"), at(-20)) == (None, "unknown")  # no quote was there yet
        assert value(conn, reader, '{"action":"POST","parameters":{}}', at(30)) == (None, "unknown")
        assert value(conn, reader, '{"action":"WAIT"}', at(30)) == (0.0, "no_trade")

    def test_a_market_that_is_not_there_is_an_invalid_action(self, conn: Connection, reader: GameAnswers) -> None:
        assert value(conn, reader, trade("buy_yes", "99999"), at(30)) == (None, "invalid")
        assert value(conn, reader, trade("buy_yes", "41001", amount=-5), at(30)) == (None, "invalid")

    @pytest.mark.parametrize("name", ["733333333333333248", "will the mayor resign?", LONG_ID])
    def test_a_market_by_its_question_or_an_id_that_lost_its_last_digits(
        self, conn: Connection, reader: GameAnswers, name: str
    ) -> None:
        assert value(conn, reader, trade("buy_yes", name), at(30))[1] != "invalid"

    def test_a_sale_against_what_the_agents_shares_had_cost(
        self, conn: Connection, reader: GameAnswers, hour: Feed
    ) -> None:
        moment = at(13)
        [bought] = [
            t
            for t in hour.rows["AgentTrade"]
            if t["agentUserId"] == "31003" and t.get("marketId") == "41005" and t["executedAt"] < moment
        ]
        shares = 0.999 * bought["amount"] / bought["price"]
        quotes = [
            q for q in hour.rows["PredictionPriceHistory"] if q["marketId"] == "41005" and q["createdAt"] < moment
        ]
        likely = max(quotes, key=lambda q: q["createdAt"])["yesPrice"]
        expected = 0.999 * likely / (1 - likely) * shares / bought["amount"] - 1
        worth, state = value(conn, reader, trade("sell_yes", "41005", amount=0), moment, "31003")
        assert (worth, state) == (pytest.approx(expected, abs=1e-9), "final")
        assert value(conn, reader, trade("sell_no", "41005"), moment, "31003") == (None, "invalid")


class TestPerpetuals:
    def test_from_the_last_quote_to_the_horizon(self, conn: Connection, reader: GameAnswers) -> None:
        moment = at(9) + timedelta(seconds=30)  # 100.0, and 97.0 an hour later
        for name in ("ACME", "org-7"):
            assert value(conn, reader, trade("open_long", name, "perp"), moment) == (pytest.approx(-0.3), "final")
        assert value(conn, reader, trade("open_short", "ACME", "perp"), moment) == (pytest.approx(0.3), "final")
        assert value(conn, reader, trade("open_long", "ZED", "perp"), at(31)) == (None, "pending")
        assert value(conn, reader, trade("open_long", "Nowhere", "perp"), moment) == (None, "invalid")

    def test_a_close_is_against_the_entry_of_what_was_open(self, conn: Connection, reader: GameAnswers) -> None:
        close = trade("close_position", "ACME", "perp", amount=0)
        worth, state = value(conn, reader, close, at(43), "31002")  # a short from 104.0; the last quote is 90.0
        assert state == "final"
        assert worth is not None
        assert worth > 0.5
        assert value(conn, reader, close, at(5), "31002") == (None, "invalid")
