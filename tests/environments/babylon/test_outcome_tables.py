"""Outcomes from the game's tables, and what follows from them: rewards, and how a window trains."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from datetime import timedelta
from typing import Any

from babylon_assets.domain.datasets import build_dataset
from babylon_assets.domain.trajectories import TrajectoryRecord
from babylon_assets.environments.babylon import outcome_tables
from babylon_assets.environments.babylon.details import steps_frame
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.environments.babylon.scorers import score_game_steps
from tests.domain.rows import START, WINDOW, call, step
from tests.environments.babylon.rows import (
    Connection,
    add_trajectories,
    add_users,
    market,
    organization,
    quote,
    read,
    stock_price,
    trade,
    trajectory,
)


class TestOutcomes:
    def test_frames_have_the_declared_columns_even_when_nothing_is_known(self, game_conn: Connection) -> None:
        found = outcome_tables.read_outcomes(game_conn, WINDOW, steps_frame([]))
        for name in (field.name for field in fields(OutcomeTables) if field.name != "windows"):
            frame, expected = getattr(found, name), getattr(OutcomeTables.empty(), name)
            assert frame.empty
            assert frame.dtypes.to_dict() == expected.dtypes.to_dict(), name

    def test_stock_prices_by_the_organizations_id_or_name(self, game_conn: Connection) -> None:
        copy_rows(game_conn, "Organization", [organization("ACME", name="Acme Corp"), organization("BOLT")])
        prices = [stock_price("1", 100.0, 0), stock_price("2", 101.0, 5), stock_price("3", 9.0, 5, "BOLT")]
        copy_rows(game_conn, "StockPrice", prices)
        tickers = ["ACME", "Acme Corp", "none"]
        found = outcome_tables.read_stock_prices(game_conn, tickers, START, START + timedelta(minutes=5))
        assert found[["ticker", "price"]].values.tolist() in (
            [["ACME", 100.0], ["Acme Corp", 100.0]],
            [["Acme Corp", 100.0], ["ACME", 100.0]],
        )

    def test_prediction_prices_begin_with_the_last_before_the_start(self, game_conn: Connection) -> None:
        copy_rows(game_conn, "Market", [market("m1"), market("m2")])
        quotes = [quote(f"q{n}", 0.1 * n, n, "m1") for n in range(1, 6)]
        copy_rows(game_conn, "PredictionPriceHistory", [*quotes, quote("other", 0.5, 3, "m2")])
        minute = timedelta(minutes=1)
        found = outcome_tables.read_prediction_prices(game_conn, ["m1"], START + 3 * minute, START + 5 * minute)
        assert found["yes_price"].round(6).tolist() == [0.2, 0.3, 0.4]

    def test_from_tables_to_rewards(self, game_conn: Connection) -> None:
        """Entry price counts; a market that resolves days later credits the step's own window."""
        add_users(game_conn, "a1")
        perp = {"marketType": "perp", "ticker": "ACME", "side": "short", "amount": 10}
        steps = [
            step(0),
            step(1, action={"actionType": "OPEN_PERP_POSITION", "parameters": perp, "success": True}),
            step(2, action={"actionType": "INVALID_ACTION", "success": False, "error": "not JSON"}),
        ]
        add_trajectories(game_conn, trajectory("t1", steps))
        copy_rows(game_conn, "Market", [market("m1")])
        copy_rows(game_conn, "Organization", [organization("ACME")])
        copy_rows(game_conn, "StockPrice", [stock_price("s0", 100.0, 0), stock_price("s1", 95.0, 2)])
        minute = timedelta(minutes=1)
        short = {"marketType": "perp", "marketId": None, "ticker": "ACME", "side": "short"}
        trades = [
            trade("x1", price=0.9),
            trade("x2", **short, action="open", price=100.0, executedAt=START + minute),
            trade("x3", **short, action="close", price=95.0, executedAt=START + 2 * minute),
        ]
        copy_rows(game_conn, "AgentTrade", trades)
        weights = {"outcome": 1.0}

        def scored() -> list[Any]:
            records = [row for row in read(game_conn).values() if isinstance(row, TrajectoryRecord)]
            frame = steps_frame(records)
            scores = score_game_steps(frame, outcome_tables.read_outcomes(game_conn, WINDOW, frame), weights=weights)
            rewards = [None if reward != reward else round(reward, 6) for reward in scores["reward"].tolist()]
            return list(zip(scores["state"], rewards, strict=True))

        assert scored() == [("pending", None), ("final", 0.5), ("invalid", -0.5)]
        game_conn.execute(
            """UPDATE public."Market" SET resolved = true, resolution = true, "updatedAt" = '2026-10-04'"""
        )
        assert scored() == [("final", 0.1), ("final", 0.5), ("invalid", -0.5)]


def test_rows_of_the_real_game_become_imitation(game_conn: Connection) -> None:
    """Other models' answers, long prompts, no log-probabilities, several agents at the same moment."""
    add_users(game_conn, *(f"a{n}" for n in range(4)))
    prompts = {"model": "gpt-4o-mini", "callId": None, "systemPrompt": "s" * 900, "userPrompt": "é" * 2100}
    rows = []
    for n, side in enumerate(["YES", "NO", "YES", "NO"]):
        parameters = {"marketType": "prediction", "marketId": "m1", "side": side, "amount": 10}
        action = {"actionType": "BUY_SHARES", "parameters": parameters, "success": True}
        steps = [step(llmCalls=[call(**prompts, response=f"I buy {side}")], action=action)]
        rows.append(trajectory(f"t{n}", steps, agentId=f"a{n}"))
    add_trajectories(game_conn, *rows)
    copy_rows(game_conn, "Market", [market("m1", resolved=True, resolution=True)])
    copy_rows(game_conn, "PredictionPriceHistory", [quote("q1", 0.3, -1)])
    trades = [
        trade(f"x{n}", agentUserId=f"a{n}", side=side, price=0.3 if side == "YES" else 0.7)
        for n, side in enumerate(["YES", "NO", "YES", "NO"])
    ]
    copy_rows(game_conn, "AgentTrade", trades)
    records = [row for row in read(game_conn).values() if isinstance(row, TrajectoryRecord)]
    steps_table = steps_frame(records)
    scores = score_game_steps(steps_table, outcome_tables.read_outcomes(game_conn, WINDOW, steps_table))
    dataset = build_dataset(WINDOW, records, {}, scores, "babylon-agent")
    assert Counter(sample.trains_as for sample in dataset.samples) == {"sft": 2, "skip": 2}
    assert {sample.response for sample in dataset.samples if sample.trains_as == "sft"} == {"I buy YES"}
    assert dataset.counts["skip: worse half of its group"] == 2
