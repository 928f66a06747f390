"""Rewards through the line: a scorer of one's own as the README shows it, a market that resolves late."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from babylon_assets.config.settings import load_settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.feedback import Feedback, add_feedback
from babylon_assets.ledger.scores import read_scores, revisions
from babylon_assets.orchestration.assets.raw_trajectories import copy_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import score_window
from babylon_assets.orchestration.window_queue import changed_windows
from tests.evaluation.players import Scripted, follow, hold
from tests.orchestration.assets.conftest import FIRST, World
from tools.readme import README


def shown(name: str) -> tuple[str, dict[str, str]]:
    """The README's example of a scorer: its module, and the settings that it is used with."""
    text = README.read_text()
    [module] = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    [line] = re.findall(r"^(PYTHONPATH=. SCORERS=.*) babylon train", text, flags=re.MULTILINE)
    return module, dict(setting.split("=", 1) for setting in line.split())


def test_the_readmes_command_finds_the_scorer_in_the_folder_where_it_is_typed(world: World, tmp_path: Path) -> None:
    module, given = shown("scorer")
    (tmp_path / "my_scorers.py").write_text(module)
    command, ours = Path(sys.executable).with_name("babylon"), {"BABYLON_HOME": str(tmp_path / "home")}
    environment = {**os.environ, **ours, "DATABASE_URL": world.database.url, "COLUMNS": "200", **given}
    said = subprocess.run(
        [command, "doctor"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    [line] = [line for line in said.stdout.splitlines() if " rewards " in line]
    assert line.startswith("ok")
    assert "patience" in line


def test_the_readmes_scorer_takes_part_in_the_reward(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, given = shown("scorer")
    assert len(module.splitlines()) <= 10
    (tmp_path / "my_scorers.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = load_settings({name: given[name] for name in ("SCORERS", "REWARD_WEIGHTS")}, None)
    world = world.having(
        scorers=settings.rewards.scorers, reward_weights=settings.rewards.weights, train_rl_local=False
    )
    some_wait = Scripted(lambda prompt, seed: hold(prompt) if seed % 2 else follow(prompt))
    with world.database.connect() as conn:
        play_window(world.settings, conn, FIRST, some_wait)
    try:
        world.run(FIRST)
    finally:
        sys.modules.pop("my_scorers", None)
    with world.database.connect() as conn:
        kept = read_scores(conn, FIRST)
    open_still = kept["state"] == "pending"  # in some hours a market ends in a later one
    assert kept["patience"].isna().tolist() == open_still.tolist()
    kept = kept[~open_still]
    assert set(kept["patience"]) == {0.0, 1.0}
    assert (kept["patience"] == (kept["state"] == "no_trade")).all()
    assert kept["reward"].tolist() == pytest.approx((kept["outcome"] + 0.05 * kept["patience"]).tolist())
    assert world.metadata("scored_trajectories", FIRST)["scorers"] == "outcome v1, patience v1"


def test_feedback_is_a_reward_that_lives_nowhere_in_the_game(world: World) -> None:
    world = world.having(reward_weights={"feedback": 1.0}, train_rl_local=False)
    world.play(FIRST)
    with world.database.connect() as conn:
        calls = "SELECT call_id, trajectory_id, step FROM babylon_training.inference_calls ORDER BY call_id LIMIT 2"
        (call, trajectory, step), (other, _, _) = conn.execute(calls).fetchall()
        query = 'SELECT "agentId", "endTime" FROM public.trajectories WHERE "trajectoryId" <> %s ORDER BY 1 LIMIT 1'
        [(agent, end)] = conn.execute(query, [trajectory]).fetchall()
        for number, (value, text, call_id) in enumerate([(1.0, None, call), (0.0, None, call), (None, "bold", other)]):
            add_feedback(conn, Feedback(f"f{number}", call_id, None, None, value, text, None, datetime.now(UTC)))
        add_feedback(conn, Feedback("f9", None, agent, end.replace(tzinfo=UTC), 0.25, None, None, datetime.now(UTC)))
    world.run(FIRST)
    with world.database.connect() as conn:
        scores = read_scores(conn, FIRST)
    judged = scores[scores["feedback"].notna()]
    assert sorted(judged["reward"]) == [0.25, 0.5]
    own = judged[judged["reward"] == 0.5]
    assert [tuple(row) for row in own[["trajectory_id", "step"]].to_numpy()] == [(trajectory, step)]
    assert judged[judged["reward"] == 0.25]["agent_id"].tolist() == [agent]
    assert world.metadata("scored_trajectories", FIRST)["scorers"] == "feedback v1"

    installation = Installation(world.settings, world.database)
    assert changed(installation) == []
    with world.database.connect() as conn:  # after the window was scored
        add_feedback(conn, Feedback("late", call, None, None, 1.0, None, None, datetime.now(UTC)))
    assert changed(installation) == [FIRST]
    copy_window(installation, FIRST)
    assert max(score_window(installation, FIRST).scores["reward"]) == pytest.approx(2 / 3)
    assert changed(installation) == []


def changed(installation: Installation) -> list[str]:
    """The windows that the sensor would have read again."""
    return changed_windows(installation, None, 40, lambda _window, _fingerprint: False).windows


def test_a_scorer_that_cannot_be_imported_fails_the_window_with_what_to_do(world: World) -> None:
    world.play(FIRST)
    world = world.having(scorers=("no_such_module:x",), train_rl_local=False)
    with pytest.raises(PermanentError, match=r"no_such_module:x.*put its folder on PYTHONPATH"):
        world.run(FIRST)
    assert "no_such_module" in (world.row(FIRST).reason or "")


def test_a_market_that_resolves_days_later_makes_a_new_revision_and_another_dataset(world: World) -> None:
    world = world.having(train_rl_local=False)
    world.play(FIRST)
    world.execute('UPDATE public."Market" SET resolved = false, "updatedAt" = now() - interval \'1 day\'')
    world.execute('DELETE FROM public."market_outcomes"')
    world.run(FIRST)
    pending, before = world.metadata("scored_trajectories", FIRST), world.row(FIRST)
    assert pending["pending"] > 0
    assert (pending["revision"], pending["changed_trajectories"]) == (1, 6)
    world.run(FIRST)
    again = world.metadata("scored_trajectories", FIRST)
    assert (again["revision"], again["changed_trajectories"]) == (1, 0)
    assert world.row(FIRST).dataset_id == before.dataset_id
    world.execute(
        'UPDATE public."Market" SET resolved = true, resolution = coalesce(resolution, true), "updatedAt" = now()'
    )
    world.run(FIRST)
    final, after = world.metadata("scored_trajectories", FIRST), world.row(FIRST)
    assert (final["revision"], final["pending"]) == (2, 0)
    assert 0 < final["changed_trajectories"] <= 6
    assert "outcome" in final["changed_scorers"]
    assert after.fingerprint != before.fingerprint
    assert after.dataset_id != before.dataset_id
    with world.database.connect() as conn:
        old, new = read_scores(conn, FIRST, 1), read_scores(conn, FIRST)
        assert [each.revision for each in revisions(conn, FIRST)] == [1, 2]
    assert (old["reward"].isna().sum(), new["reward"].isna().sum()) == (pending["pending"], 0)
    decided = old["reward"].notna()
    assert old.loc[decided, "outcome"].tolist() == new.loc[decided, "outcome"].tolist()
