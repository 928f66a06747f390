"""What is written into the game's own tables: one model that may be served, and the marks of what was trained on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.errors import SourceError
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.environments.babylon.writeback import OURS, deploy_model, mark_used, served
from babylon_assets.environments.base import DeployedModel
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory

Conn = psycopg.Connection[Any]
FUTURE = datetime(2031, 1, 1, tzinfo=UTC)


def model(step: int, **changes: Any) -> DeployedModel:
    fields: dict[str, Any] = {
        "checkpoint_id": f"c{step}",
        "chain": "babylon-agent",
        "step": step,
        "base_model": "small",
        "batch": f"c{step}",
        "inference_name": f"babylon-agent@{step}",
        "benchmark_score": 0.5,
        "avg_reward": 0.25,
        "metrics": {"valid_share": 0.98},
    }
    return DeployedModel(**{**fields, **changes})


def models(conn: Conn) -> dict[str, tuple[str, str, bool]]:
    rows = conn.execute(
        'SELECT "version", "status", "storagePath", "archivedAt" IS NOT NULL FROM public.trained_models'
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def foreign(conn: Conn, **changes: Any) -> None:
    now = datetime(2026, 11, 5, tzinfo=UTC)
    row = {
        "id": "theirs",
        "modelId": "babylon-agent-v1.0.2",
        "version": "v1.0.2",
        "baseModel": "big",
        "status": "ready",
        "storagePath": "somewhere",
        "createdAt": now,
        "updatedAt": now,
    }
    copy_rows(conn, "trained_models", [{**row, **changes}])


def test_the_game_picks_what_was_deployed_last_also_after_going_back(game_conn: Conn) -> None:
    assert served(game_conn) is None
    for step in (1, 2, 3):
        assert deploy_model(game_conn, model(step))
        assert served(game_conn) == (f"{OURS}c{step}", f"babylon-agent@{step}")
    assert deploy_model(game_conn, model(1))  # a rollback
    assert served(game_conn) == (f"{OURS}c1", "babylon-agent@1")
    assert models(game_conn) == {
        "v1.0.1": ("deployed", "babylon-agent@1", False),
        "v1.0.2": ("archived", "babylon-agent@2", True),
        "v1.0.3": ("archived", "babylon-agent@3", True),
    }
    row = game_conn.execute(
        'SELECT "modelId", "baseModel", "evalMetrics", "updatedAt" >= "createdAt" - interval \'1 second\' '
        "FROM public.trained_models WHERE status = 'deployed'"
    ).fetchone()
    assert row == ("babylon-agent-v1.0.1", "small", {"valid_share": 0.98}, True)


def test_what_is_deployed_already_is_not_written_again(game_conn: Conn) -> None:
    deploy_model(game_conn, model(1))
    before = game_conn.execute("SELECT * FROM public.trained_models").fetchall()
    assert not deploy_model(game_conn, model(1))
    assert game_conn.execute("SELECT * FROM public.trained_models").fetchall() == before


def test_others_rows_are_left_alone_and_a_newer_one_does_not_hide_ours(game_conn: Conn) -> None:
    foreign(game_conn, createdAt=FUTURE)
    assert served(game_conn) == ("theirs", "somewhere")
    deploy_model(game_conn, model(2))
    assert served(game_conn) == (f"{OURS}c2", "babylon-agent@2")
    # their name for version 2 is taken
    assert models(game_conn) == {
        "v1.0.2": ("ready", "somewhere", False),
        "v2.0.2": ("deployed", "babylon-agent@2", False),
    }


def test_trajectories_are_marked_once(game_conn: Conn) -> None:
    add_users(game_conn, "a1")
    add_trajectories(game_conn, *(trajectory(f"t{number}") for number in range(3)))
    assert mark_used(game_conn, ["t0", "t1", "gone"], "c1") == 2
    assert mark_used(game_conn, ["t0", "t1"], "c1") == 0
    marks = game_conn.execute(
        'SELECT "trajectoryId", "usedInTraining", "trainedInBatch" FROM public.trajectories ORDER BY 1'
    ).fetchall()
    assert marks == [("t0", True, "c1"), ("t1", True, "c1"), ("t2", False, None)]


def test_a_game_without_the_table_or_the_right_is_named(conn: Conn, game_conn: Conn) -> None:
    with pytest.raises(SourceError, match="trained_models"):
        deploy_model(conn, model(1))
    game_conn.execute("CREATE ROLE reader")
    try:
        game_conn.execute("GRANT USAGE ON SCHEMA public TO reader")
        game_conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        game_conn.execute("SET ROLE reader")
        with pytest.raises(SourceError, match="WRITE_TRAINED_MODELS=false"):
            deploy_model(game_conn, model(1))
    finally:
        game_conn.rollback()
