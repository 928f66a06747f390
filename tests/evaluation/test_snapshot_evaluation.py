"""Benchmark snapshots as evidence of the gate: asked once of each policy, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.evaluation.recorded_prompts import answers_of
from babylon_assets.evaluation.snapshot_evaluation import NAME, measure_snapshots, snapshot_files
from babylon_assets.ledger.database import Database
from babylon_assets.training.roots import root_of
from tests.environments.babylon.test_snapshot_prompts import content


def test_a_policy_is_asked_the_snapshots_once(database: Database, tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    (folder / "one.json").write_bytes(content())
    settings = Settings(
        environment="feed", base_model=str(tiny_base), gate_snapshots=str(folder), home=tmp_path / "home"
    )
    with database.connect() as conn:
        root = root_of(conn, settings, str(tiny_base))
    evaluation = measure_snapshots(settings, database, root)
    assert evaluation is not None and evaluation.evaluation == NAME
    answers = answers_of(evaluation)
    assert list(answers) == ["s/0/0", "s/5/0"]
    invalid = settings.rewards.invalid_action_reward
    assert {(answer.agent, answer.valid, answer.reward) for answer in answers.values()} == {("s/0", False, invalid)}
    again = measure_snapshots(settings, database, root)
    assert again is not None and again.results == evaluation.results
    (folder / "one.json").write_text("{}")
    with pytest.raises(PermanentError, match="no benchmark snapshot"):
        measure_snapshots(settings, database, root)


def test_a_folder_without_snapshots_is_refused(tmp_path: Path) -> None:
    assert snapshot_files(Settings()) == []
    with pytest.raises(PermanentError, match="GATE_SNAPSHOTS"):
        snapshot_files(Settings(gate_snapshots=str(tmp_path)))
    with pytest.raises(PermanentError, match="GATE_SNAPSHOTS"):
        snapshot_files(Settings(gate_snapshots=str(tmp_path / "missing")))
