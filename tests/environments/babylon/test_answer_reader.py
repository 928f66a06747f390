"""Answers in the form of November 2025: markets by their questions, companies by name, a winning share pays 1."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.frames import steps_frame
from babylon_assets.environments.babylon.answer_reader import GameAnswers
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.evaluation.recorded_prompts import AnsweredStep
from tests.domain.rows import START, WINDOW
from tests.environments.babylon.rows import Connection, market, organization, quote, stock_price

QUESTION = "Will ACME ship before June?"
AT = int(START.timestamp() * 1000) + 10 * 60_000


def order(side: str, name: str, kind: str = "prediction", amount: float = 50) -> str:
    fields = {"type": kind, "market": name, "action": side, "amount": amount, "reasoning": "r"}
    return "Sure: " + json.dumps({"action": "trade", "trade": fields}) + " done"


@pytest.fixture
def conn(game_conn: Connection) -> Connection:
    rows = [market("m1", question=QUESTION, resolved=True, resolution=True), market("m2", question="Open?")]
    copy_rows(game_conn, "Market", rows)
    copy_rows(
        game_conn, "PredictionPriceHistory", [quote("q1", 0.25, 1), quote("q2", 0.75, 20), quote("q3", 0.5, 1, "m2")]
    )
    copy_rows(game_conn, "Organization", [organization("ACME", name="Acme Corp")])
    copy_rows(game_conn, "StockPrice", [stock_price("1", 100.0, 0), stock_price("2", 104.0, 71)])
    return game_conn


def value(conn: Connection, text: str) -> tuple[float | None, str]:
    environment = BabylonEnvironment(Settings())
    reader = GameAnswers(environment)
    recorded = make_step(3, AT, AT, 200.0, 0.0, "TRADING_DECISION", None, None, None, None, None, False, None, False)
    step = reader.parse(text, [], recorded)
    frame = steps_frame([AnsweredStep(WINDOW, "t", "a1", [step])], environment.detail)
    [row] = reader.value(conn, WINDOW, frame).to_dict("records")
    return (None if pd.isna(row["worth"]) else float(row["worth"]), str(row["state"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (order("buy_yes", QUESTION), (pytest.approx(1 - 0.25 / 0.75), "final")),
        (order("buy_no", QUESTION), (pytest.approx(-1.0), "final")),
        (order("buy_yes", "m1"), (pytest.approx(1 - 0.25 / 0.75), "final")),
        (order("buy_yes", "Open?"), (None, "pending")),
        (order("buy_yes", "Never asked?"), (None, "invalid")),
        (order("open_long", "Acme Corp", "perp"), (pytest.approx(0.4), "final")),
        (order("open_short", "ACME", "perp"), (pytest.approx(-0.4), "final")),
        (order("buy_yes", QUESTION, amount=201), (None, "invalid")),  # more than the agent had
        (order("sell_yes", QUESTION), (0.0, "no_trade")),  # offered, and never done
        ('{"action":"hold"}', (0.0, "no_trade")),
        ('{"action":"buy_yes","target":"A"}', (None, "invalid")),  # the simulated market's language
    ],
)
def test_an_answer_is_worth_what_its_order_would_have_earned(
    conn: Connection, text: str, expected: tuple[float | None, str]
) -> None:
    assert value(conn, text) == expected


def test_what_the_simulated_market_says_of_a_policy_is_not_asked_here() -> None:
    environment = BabylonEnvironment(Settings())
    assert environment.benchmark is None
    assert environment.answers is not None


def test_an_action_names_its_market_by_its_question(conn: Connection) -> None:
    """Whether the order named the market by its id, by its question, or by an id that lost its last digits."""
    long_id, long = "123456789012345678", "Will the mayor of the old town resign before the election is over?"
    copy_rows(conn, "Market", [market(long_id, question=long)])
    environment = BabylonEnvironment(Settings())

    def told(*names: str) -> list[str]:
        steps = [
            make_step(0, AT, AT, 1.0, 0.0, "BUY", "prediction", name, None, "yes", 50.0, True, None, False)
            for name in names
        ]
        environment.look_up_names(conn, steps)
        return [environment.describe_action(step) for step in steps]

    cut = '"Will the mayor of the old town resign before th…"'
    assert told("m1", QUESTION.lower()) == [f'BUY yes "{QUESTION}" 50'] * 2
    assert told(long_id, "123456789012345670") == [f"BUY yes {cut} 50"] * 2
    assert told("m9", "Nobody asked whether the mayor of the old town resigns") == [
        "BUY yes m9 50",
        "BUY yes Nobody asked whether the mayor of the old town r… 50",
    ]
