"""A dataset is looked at as it is kept: what was changed behind our back is found, by trajectory."""

from __future__ import annotations

from typing import Any

import pytest

from babylon_assets.domain.trajectories import Exchange, Message, encode_chat
from babylon_assets.environments.babylon.details import RESULT_KEYS
from babylon_assets.ledger import compression
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration import stored_datasets
from babylon_assets.orchestration.stored_datasets import DatasetFaults
from tests.domain.rows import WINDOW
from tests.orchestration.assets.conftest import ROWS, data_path

OTHER = compression.pack(encode_chat([Exchange([Message("user", "another prompt")], "another answer")]))


def after(database: Database, dataset: str, statement: str, *parameters: Any) -> DatasetFaults:
    """What a look finds once somebody has changed something."""
    with database.connect() as conn:
        conn.execute(statement.encode(), parameters)
        return stored_datasets.look(conn, WINDOW, dataset, RESULT_KEYS)


def test_a_dataset_that_nobody_touched_is_as_recorded(game: Database) -> None:
    assert after(game, data_path(game), "SELECT 1") == DatasetFaults(ROWS, [], [], [], [])


@pytest.mark.parametrize("table", ["raw_trajectories", "training_dataset_trajectories"])
def test_a_changed_text_is_not_what_the_id_names(game: Database, table: str) -> None:
    statement = f"UPDATE babylon_training.{table} SET chat = %s WHERE trajectory_id = 't7'"
    found = after(game, data_path(game), statement, OTHER)
    assert found.unstable == ["the texts of t7 are not what the dataset's id names"]
    assert found.wrong == ["the dataset cannot be read"]


def test_a_text_that_is_gone_is_missed(game: Database) -> None:
    statement = "DELETE FROM babylon_training.training_dataset_trajectories WHERE trajectory_id = 't7'"
    assert after(game, data_path(game), statement).unstable == ["the texts of t7 are not kept"]


def test_a_text_that_the_window_no_longer_has_is_of_nobodys_record(game: Database) -> None:
    statement = "DELETE FROM babylon_training.raw_trajectories WHERE trajectory_id = 't7'"
    found = after(game, data_path(game), statement)
    assert found.unstable == []
    assert found.wrong == ["t7/0/0: no record has this prompt and answer"]
