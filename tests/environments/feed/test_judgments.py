"""What the game says of its agents itself, and what is written into its tables in its own form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.evaluations import BenchmarkResult
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.llm_judge import JudgeScore
from babylon_assets.domain.trajectories import TrajectoryRecord
from babylon_assets.environments.base import DeployedModel
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.ledger.database import Database
from tests.environments.feed.hour import WINDOW
from tests.environments.feed.tables import insert_rows

Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(feed_database: Database) -> Iterator[Connection]:
    with feed_database.connect() as connection:
        rows = [("t-00013", "feed-deterministic", "trust-v1", 0.7), ("t-00018", "openai/gpt-5", "3", 0.2)]
        insert_rows(
            connection,
            "reward_judgments",
            [
                {
                    **{"id": f"j-{name}", "trajectoryId": name, "judgeModel": model, "judgeVersion": version},
                    **{"overallScore": score, "reasoning": "because", "criteriaJson": "{}"},
                }
                for name, model, version, score in rows
            ],
        )
        yield connection


def test_the_games_own_judgments_are_scores_that_say_who_judged(conn: Connection) -> None:
    environment = FeedEnvironment(Settings(reward_weights={"game_judgment": 1.0}))
    rows = [row for row in environment.read_window(conn, WINDOW) if isinstance(row, TrajectoryRecord)]
    steps = steps_frame(rows, environment.detail)
    valued = environment.value_steps(conn, WINDOW, steps)
    scores = environment.scorers["game_judgment"].score(steps.assign(judgment=valued["judgment"]))
    judged = {
        (name, judge): score
        for name, judge, score in zip(steps["trajectory_id"], valued["judge"], scores, strict=True)
        if not np.isnan(score)
    }
    assert judged == {("t-00013", "formula feed-deterministic"): 0.7, ("t-00018", "model openai/gpt-5"): 0.2}
    before = environment.fingerprint(conn, WINDOW, [])
    conn.execute("""UPDATE public.reward_judgments SET "overallScore" = 0.9 WHERE id = 'j-t-00018'""")
    assert environment.fingerprint(conn, WINDOW, []) != before


def test_our_judge_never_writes_over_a_row_of_somebody_else(conn: Connection) -> None:
    write_back = FeedEnvironment(Settings()).write_back
    assert write_back is not None
    verdicts = [JudgeScore("t-00013", 0.1, "ours", {0: 0.1}), JudgeScore("t-00020", 0.4, "ours", {0: 0.4})]
    for score in (0.1, 0.6):
        changed = [verdicts[0], JudgeScore("t-00020", score, "ours", {0: score})]
        write_back.write_judgments(conn, WINDOW, changed, model="m", version="1", rubric="r")
    kept = conn.execute(
        """SELECT "trajectoryId", "judgeModel", "overallScore" FROM public.reward_judgments ORDER BY 1"""
    ).fetchall()
    assert kept == [
        ("t-00013", "feed-deterministic", 0.7),
        ("t-00018", "openai/gpt-5", 0.2),
        ("t-00020", "m", 0.6),
    ]


def test_a_checkpoint_that_was_rolled_back_says_so(conn: Connection) -> None:
    write_back = FeedEnvironment(Settings()).write_back
    assert write_back is not None
    for step in (1, 2, 1):
        model = DeployedModel(
            checkpoint_id=f"c{step}",
            chain="babylon-agent",
            step=step,
            base_model="base",
            batch=None,
            inference_name=f"babylon-agent@{step}",
            benchmark_score=0.5,
            avg_reward=0.1,
            metrics={"valid_share": 0.9},
        )
        write_back.deploy(conn, model)
    rows = conn.execute(
        """SELECT version, status, "evalMetrics" ->> 'valid_share', "benchmarkScore" FROM public.trained_models
        ORDER BY version"""
    ).fetchall()
    assert rows == [("v1.0.1", "deployed", "0.9", 0.5), ("v1.0.2", "rolled_back", "0.9", 0.5)]


def test_parts_of_a_judgment_are_scores_where_they_are_filled(conn: Connection) -> None:
    environment = FeedEnvironment(Settings(environment="feed"))
    parts = f'{{"trust": 0.25, "scam_safety": 1{"0" * 400}, "pnl": "x", "rest": {"[" * 5_000}{"]" * 5_000}}}'
    conn.execute("""UPDATE public.reward_judgments SET "componentScoresJson" = %s WHERE id = 'j-t-00013'""", [parts])
    rows = [row for row in environment.read_window(conn, WINDOW) if isinstance(row, TrajectoryRecord)]
    steps = steps_frame(rows, environment.detail)
    valued = steps.assign(**environment.value_steps(conn, WINDOW, steps))
    trust = environment.scorers["game_trust"].score(valued)
    assert set(trust[valued["trajectory_id"] == "t-00013"]) == {0.25}
    assert trust[valued["trajectory_id"] != "t-00013"].isna().all()
    assert environment.scorers["game_scam_safety"].score(valued).isna().all()


def test_how_a_snapshot_was_played_is_written_once_in_the_games_form(conn: Connection) -> None:
    write_back = FeedEnvironment(Settings(environment="feed")).write_back
    assert write_back is not None
    result = BenchmarkResult(
        checkpoint_id="c1",
        inference_name="babylon-agent@1",
        benchmark="snapshot-11",
        version="v",
        path="snapshot-11.json",
        pnl=12.5,
        base_pnl=10.0,
        base_accuracy=0.5,
        figures={"accuracy": None, "win_rate": 0.75, "of_optimal": 0.1, "runs": 8},
        milliseconds=1500,
    )
    for _ in range(2):
        write_back.write_benchmark(conn, result)
    rows = conn.execute(
        """SELECT "modelId", "benchmarkId", "totalPnl", "predictionAccuracy", "perpWinRate", "optimalityScore",
        "detailedMetrics" -> 'accuracy', "baselinePnlDelta", "baselineAccuracyDelta", improved, duration
        FROM public.benchmark_results"""
    ).fetchall()
    assert rows == [("babylon-agent@1", "snapshot-11", 12.5, 0.0, 0.75, 0.1, None, 2.5, None, True, 1500)]
    conn.execute("DROP TABLE public.benchmark_results")
    write_back.write_benchmark(conn, result)
