"""The game's ticks of several steps: each step is credited with the rest of its tick when the setting says so."""

from __future__ import annotations

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.assets.raw_trajectories import copy_window
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import score_window
from tests.domain.rows import WINDOW, call, step
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory

HOLD = {"actionType": "HOLD", "parameters": {}, "success": True}
INVALID = {"actionType": "INVALID_ACTION", "parameters": {}, "success": False, "error": "not JSON"}


@pytest.mark.parametrize(
    ("environment", "discount", "first"),
    [("babylon", 0.0, 0.0), ("babylon", 0.5, -0.25), ("babylon", 1.0, -0.5), ("simulated", 1.0, 0.0)],
)
def test_a_step_is_credited_with_what_followed_in_its_tick(
    game_database: Database, environment: str, discount: float, first: float
) -> None:
    with game_database.connect() as conn:
        add_users(conn, "a")
        answered = {"llmCalls": [call(callId=None, model="gpt-4o")]}
        steps = [step(0, action=HOLD, **answered), step(1, action=INVALID, **answered)]
        add_trajectories(conn, trajectory("t", steps, agentId="a"))
    settings = Settings(environment=environment, credit_discount=discount, reward_weights={"outcome": 1.0})
    installation = Installation(settings, game_database)
    copy_window(installation, WINDOW)
    score_window(installation, WINDOW)
    dataset, _ = freeze_window(installation, WINDOW)
    assert [sample.reward for sample in sorted(dataset.samples, key=lambda head: head.step)] == [first, -0.5]
