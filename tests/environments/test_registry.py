"""Which environment an installation has, also while its database does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError, TransientError
from babylon_assets.environments.files.environment import FilesEnvironment
from babylon_assets.environments.registry import environment_names, open_environment
from babylon_assets.ledger.database import Database
from babylon_assets.training.backends.embedded.backend import Embedded

#: Nobody listens on port 1.
NOWHERE = "postgresql://nobody@127.0.0.1:1/game?connect_timeout=1"


def test_a_database_that_does_not_answer_is_not_taken_for_babylons() -> None:
    with pytest.raises(TransientError):
        open_environment(Settings(database_url=NOWHERE))


def test_the_small_model_is_found_while_the_database_does_not_answer(tmp_path: Path) -> None:
    settings = Settings(database_url=NOWHERE, home=tmp_path)
    assert Embedded().find_base_model(settings) is None
    with pytest.raises(TransientError):
        Embedded().prepare_base_model(settings)
    made = tmp_path / "base_models" / "babylon-small-1"
    made.mkdir(parents=True)
    (made / "measurement.json").write_text("{}")
    assert Embedded().find_base_model(settings) == Embedded().prepare_base_model(settings) == str(made)


def test_files_are_an_environment_without_a_record(database: Database) -> None:
    environment = open_environment(Settings(environment="files"))
    assert isinstance(environment, FilesEnvironment)
    with database.connect() as conn:
        environment.check(conn)
        assert not environment.has_record(conn)
        assert environment.list_windows(conn) == []
        assert list(environment.read_window(conn, "2026-10-01T00:00")) == []


def test_a_name_that_there_is_none_of_is_refused_with_those_that_there_are() -> None:
    assert {"babylon", "feed", "files", "simulated"} <= set(environment_names())
    with pytest.raises(SettingsError, match="babylon, feed, files, simulated"):
        open_environment(Settings(environment="chess"))
