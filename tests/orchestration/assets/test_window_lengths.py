"""The whole line with windows that are no hours: from the played market to a checkpoint, and the next one from it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from babylon_assets.environments.babylon import game_record
from babylon_assets.environments.babylon.presence import presence
from babylon_assets.ledger import checkpoints
from babylon_assets.orchestration.jobs import DATA, TRAINING
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Line
from babylon_assets.orchestration.window_queue import Attempts, next_windows
from tests.orchestration.assets.conftest import World


@pytest.mark.parametrize("minutes", [15, 1440])
def test_the_line_runs_with_windows_of_another_length(world: World, minutes: int) -> None:
    world = world.having(window_minutes=minutes, train_seed=minutes)
    grid, now = world.settings.windows, datetime.now(UTC)
    first, second = windows = grid.closed(now, 2)
    for window in windows:
        world.play(window)
    installation = Installation(world.settings, world.database)
    with world.database.connect() as conn:
        listed = game_record.list_windows(conn, windows=grid)
        there = presence(conn, windows, grid)
    assert [(row.window, row.agents, row.trajectories) for row in listed] == [(window, 6, 6) for window in windows]
    assert [(row.rows, row.agents) for row in there] == [(6, 6), (6, 6)]
    assert min(row.outcomes["outcomes"] for row in there) > 0
    waiting = next_windows(installation, now, None, lambda window, fingerprint: Attempts(0, None))
    assert waiting.windows == [window for window in windows if _is_past_grace(world, window, now)]

    line = Line(world.definitions, world.instance)
    line.run_range(DATA, first, second)
    line.run_range(TRAINING, first, second)

    assert line.materialized("model_checkpoints") == set(windows)
    assert [world.row(window).status for window in windows] == ["trained", "trained"]
    assert world.row(first).samples == 48
    with world.database.connect() as conn:
        chain = checkpoints.chain(conn, world.settings.model_name)
    assert [made.window_id for made in chain] == [None, *windows]
    scored = world.metadata("scored_trajectories", second)
    assert (scored["steps"], scored["known"] + scored["pending"]) == (48, 48)
    assert world.metadata("promoted_model", second)["checkpoint"] == "babylon-agent@2"


def _is_past_grace(world: World, window: str, now: datetime) -> bool:
    overdue = now - world.settings.windows.parse(window).end
    return overdue.total_seconds() >= 60 * world.settings.automation.window_grace_minutes
