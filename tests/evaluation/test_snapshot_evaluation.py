"""Benchmark snapshots as evidence of the gate: asked once of each policy, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation import snapshot_evaluation
from babylon_assets.evaluation.gate_runner import decide
from babylon_assets.evaluation.recorded_prompts import answers_of
from babylon_assets.evaluation.snapshot_evaluation import NAME, measure_snapshots, snapshot_files
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.training.roots import root_of
from tests.environments.babylon.test_snapshot_prompts import answer, content
from tests.evaluation.players import Scripted
from tests.ledger.values import WINDOW, checkpoint, dataset, root, sample


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


@pytest.mark.parametrize(
    ("snapshots", "ours", "theirs", "passed", "why"),
    [
        (3, "m-1", "m-0", False, "its reward on 27 recorded prompts is -"),
        (3, "m-0", "m-1", True, "its reward on 27 recorded prompts is +"),
        (1, "m-1", "m-0", True, "9 of 9 recorded prompts, of 1 agents, have two valued answers; 24 of 3"),
    ],
)
@pytest.mark.parametrize("game", ["feed", "babylon"])
def test_snapshots_alone_decide_unless_they_are_few(
    database: Database,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    game: str,
    snapshots: int,
    ours: str,
    theirs: str,
    passed: bool,
    why: str,
) -> None:
    """No window was recorded: nothing else speaks for or against a policy that buys this market's YES."""
    for number in range(snapshots):
        (tmp_path / f"{number}.json").write_bytes(content(f"s{number}", 41))
    settings = Settings(environment=game, base_model=str(tiny_base), gate_snapshots=str(tmp_path))
    environment, kept = open_environment(settings), dataset(sample(0))
    assert isinstance(environment, BabylonEnvironment)
    bought = {
        0: answer(environment, "prediction", theirs, "buy_yes"),
        1: answer(environment, "prediction", ours, "buy_yes"),
    }
    monkeypatch.setattr(snapshot_evaluation, "why_not_loadable", lambda *_: None)
    monkeypatch.setattr(snapshot_evaluation, "load_policy", lambda _, policy: Scripted(lambda *_: bought[policy.step]))
    with database.connect() as conn:
        save_dataset(conn, kept)
        checkpoints.ensure_root(conn, root())
        challenger = checkpoint(1, WINDOW, kept.id, metrics={"loss": 0.5, "trained_tokens": 9})
        checkpoints.insert_checkpoint(conn, challenger)
    decision = decide(settings, database, challenger)
    assert (decision.passed, why in decision.why) == (passed, True), decision.why
    assert passed or decision.why.count(";") == 0


def test_a_folder_without_snapshots_is_refused(tmp_path: Path) -> None:
    assert snapshot_files(Settings()) == []
    with pytest.raises(PermanentError, match="GATE_SNAPSHOTS"):
        snapshot_files(Settings(gate_snapshots=str(tmp_path)))
    with pytest.raises(PermanentError, match="GATE_SNAPSHOTS"):
        snapshot_files(Settings(gate_snapshots=str(tmp_path / "missing")))
