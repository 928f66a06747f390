"""A window that is run again, when the chain has gone on, shows what it showed: its page is not rewritten by today."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from babylon_assets.ledger.database import Database
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World
from tests.servers import Server

LINE = ("training_datasets", "model_checkpoints", "checkpoint_evaluations", "promoted_model")
#: What a window's state, its marks in the curve and the answers of its policy have come to by now.
OF_NOW = ("reason", "learning_curve", "served_answers", "served_valid_share", "served_reward")
LAST = 'id = (SELECT max(id) FROM public."trajectories" WHERE "windowId" = %s)'


@pytest.fixture
def game_database(server: Server, three_played: str) -> Iterator[Database]:
    """A fresh database in which the three windows were played."""
    name = server.create(three_played)
    yield server.database(name)
    server.drop(name)


def pages(world: World, window: str) -> dict[str, dict[str, Any]]:
    """What each asset shows of a window, without what is of now."""
    shown = {asset: world.metadata(asset, window) for asset in LINE}
    del shown["training_datasets"]["status"]  # it was frozen, and has been trained since
    return {asset: {name: value for name, value in of.items() if name not in OF_NOW} for asset, of in shown.items()}


def test_an_old_window_that_is_run_again_shows_what_it_showed(world: World) -> None:
    with world.database.connect() as conn:  # too few agents are left in the second
        conn.execute(
            'DELETE FROM public."trajectories" WHERE "windowId" = %s AND id NOT IN '
            '(SELECT id FROM public."trajectories" WHERE "windowId" = %s LIMIT 2)',
            [SECOND, SECOND],
        )
    for window in (FIRST, SECOND, THIRD):
        world.run(window)
    first, second, row = pages(world, FIRST), pages(world, SECOND), world.row(SECOND)
    assert {"loss", "training_steps", "trained_tokens"} <= set(first["model_checkpoints"])
    assert (row.status, second["model_checkpoints"]["parent"]) == ("thin", "babylon-agent@1")
    for window in (FIRST, SECOND):
        world.run(window)
    assert (pages(world, FIRST), pages(world, SECOND)) == (first, second)
    assert world.row(SECOND).parent_id == row.parent_id
    reason = world.metadata("model_checkpoints", FIRST)["reason"]
    assert " tokens" in reason and reason.endswith("; this dataset was trained before")

    world.execute(f'UPDATE public."trajectories" SET "isTrainingData" = false WHERE {LAST}', FIRST)
    world.run(FIRST)
    changed = pages(world, FIRST)
    assert changed["training_datasets"] != first["training_datasets"]
    assert [asset for asset in LINE[1:] if changed[asset] != first[asset]] == []
