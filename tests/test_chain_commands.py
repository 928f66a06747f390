"""The commands about checkpoints: the tree, lineage both ways, pruning and forgetting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.ledger import checkpoints, training_jobs
from babylon_assets.ledger.database import Database, chain_lock
from babylon_assets.ledger.datasets import load_dataset, save_dataset
from babylon_assets.ledger.inference_calls import insert_calls
from babylon_assets.ledger.trajectories import read_window, replace_window
from tests.ledger.values import CHAIN, checkpoint, dataset, inference_call, record, root, sample

BRANCH = f"{CHAIN}+other"
HOURS = [f"2026-11-05T{hour}:00" for hour in range(14, 20)]

Babylon = Callable[..., Result]


@pytest.fixture
def babylon(database: Database, tmp_path: Path) -> Babylon:
    def run(*arguments: str) -> Result:
        environment = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": database.url, "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), env=environment)

    return run


@pytest.fixture
def folders(database: Database, tmp_path: Path) -> list[Path]:
    """A chain of five checkpoints with a folder each, every one trained on its own agent; a branch from the second."""
    made = [tmp_path / CHAIN / f"{step:04d}" for step in range(1, 6)]
    with database.connect() as conn:
        checkpoints.ensure_root(conn, root())
        for step, folder in enumerate(made, start=1):
            folder.mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_bytes(b"w" * 1000)
            window = HOURS[step - 1]
            kept = dataset(sample(step, window=window), sample(90 + step, trains_as="skip"), window=window)
            save_dataset(conn, kept)
            checkpoints.insert_checkpoint(conn, checkpoint(step, window, kept.id, path=str(folder)))
        branch: dict[str, Any] = {"chain": BRANCH, "id": "other-3", "parent_id": f"{CHAIN}-2"}
        branch["settings"] = {"reward_weights": {"outcome@1": 1.0, "heuristic@2": 0.1}}
        checkpoints.insert_checkpoint(conn, checkpoint(3, HOURS[2], kept.id, path="", **branch))
    return made


def test_chains_show_a_branch_under_where_it_begins(babylon: Babylon, folders: list[Path]) -> None:
    shown = babylon("chains").stdout.splitlines()
    assert shown[0].split() == ["policy", "id", "window", "state", "parent", "backend"]
    lines = [re.findall(r"^ *\S+", line)[0] for line in shown[1:]]
    assert lines == [*(f"{CHAIN}@{step}" for step in (0, 1, 2)), f"  {BRANCH}@3", *(f"{CHAIN}@{n}" for n in (3, 4, 5))]
    listed = json.loads(babylon("chains", "--json").stdout)
    assert {one["policy"]: one["parent"] for one in listed}[f"{BRANCH}@3"] == f"{CHAIN}-2"


def test_lineage_goes_back_to_the_root(babylon: Babylon, folders: list[Path]) -> None:
    shown = json.loads(babylon("lineage", f"{CHAIN}@2", "--json").stdout)
    assert shown["line"] == [f"{CHAIN}@1", f"{CHAIN}@0"]
    assert shown["trajectories"] == {"t2": 1}
    assert (shown["seed"], shown["versions"]) == (7, {"torch": "2.13.0"})
    in_full = babylon("lineage", f"{CHAIN}-2").stdout
    assert f"{CHAIN}@2" in in_full and "carried_from" not in in_full
    assert re.search(rf"^line +{CHAIN}@1\s{CHAIN[:12]}", in_full, re.MULTILINE), in_full
    assert json.loads(babylon("lineage", f"{BRANCH}@3", "--json").stdout)["scores"] == ["heuristic@2", "outcome@1"]
    in_words = babylon("lineage", f"{BRANCH}@3").stdout
    assert re.search(r"^scorers +heuristic v2, outcome v1$", in_words, re.MULTILINE), in_words
    unknown = babylon("lineage", "nobody@7")
    assert unknown.exit_code == 1
    assert "babylon chains" in unknown.stderr
    assert babylon("lineage", CHAIN).exit_code == 1  # the start of many ids
    assert babylon("lineage").exit_code == 2


def test_lineage_goes_forward_to_every_checkpoint_that_saw_a_trajectory(babylon: Babylon, folders: list[Path]) -> None:
    seen = json.loads(babylon("lineage", "--trajectory", "t2", "--json").stdout)
    assert seen == {
        f"{CHAIN}@2": "trained on it",
        f"{CHAIN}@3": f"trained from {CHAIN}@2",
        f"{BRANCH}@3": f"trained from {CHAIN}@2",
        f"{CHAIN}@4": f"trained from {CHAIN}@3",
        f"{CHAIN}@5": f"trained from {CHAIN}@4",
    }
    skipped = babylon("lineage", "--trajectory", "t92")
    assert (skipped.exit_code, "no checkpoint has seen it" in skipped.stdout) == (0, True)
    mistyped = babylon("lineage", "--trajectory", "nope")
    assert (mistyped.exit_code, "knows no trajectory 'nope'" in mistyped.stderr) == (1, True)


def test_prune_keeps_what_is_needed(babylon: Babylon, folders: list[Path], database: Database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO babylon_training.promotions (chain, kind, to_id, promoted_by, why) "
            "VALUES (%s, 'promotion', %s, 'a test', 'to see it kept')",
            [CHAIN, f"{CHAIN}-2"],
        )
    before = babylon("prune", "--keep", "1", "--dry-run", "--json")
    # the newest is 5 and its parent 4; 2 was promoted and the branch begins there, 1 is its parent
    assert json.loads(before.stdout) == {"removed": False, "checkpoints": [f"{CHAIN}@3"], "bytes": 1000, "calls": 0}
    assert all(folder.is_dir() for folder in folders)
    assert "1 checkpoint, 0.0 MiB removed" in babylon("prune", "--keep", "1").stdout
    assert [folder.is_dir() for folder in folders] == [True, True, False, True, True]
    assert json.loads(babylon("prune", "--keep", "1", "--json").stdout)["checkpoints"] == []
    assert "weights pruned" in babylon("chains").stdout


def test_prune_removes_nothing_that_is_not_the_checkpoints_own_folder_in_this_home(
    babylon: Babylon, folders: list[Path], database: Database, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("somebody-else") / "0003"
    link, others = tmp_path / "link" / "0003", tmp_path / "art" / "p" / "models" / "another" / "checkpoints" / "0003"
    link.parent.mkdir()
    link.symlink_to(outside)
    backup, other = tmp_path / "backups" / "0003", tmp_path / "backups" / CHAIN / "0003"
    stored, linked = tmp_path / "store" / CHAIN / "0003", tmp_path / "links" / CHAIN / "0003"
    kept = (outside, others, backup, other, stored, tmp_path / "postgres")
    for folder in kept:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"precious")
    linked.parent.mkdir(parents=True)
    linked.symlink_to(stored)
    precious, own = sha256(b"precious").hexdigest(), sha256(b"w" * 1000).hexdigest()
    named = [(place, precious) for place in (outside, link, others, backup, linked, tmp_path / "postgres", tmp_path)]
    for place, digest in [*named, (other, own)]:
        with database.connect() as conn:
            conn.execute(
                "UPDATE babylon_training.model_checkpoints SET path = %s, weights_sha256 = %s WHERE id = %s",
                [str(place), digest, f"{CHAIN}-3"],
            )
        result = babylon("prune", "--keep", "1", "--json")
        assert f"{CHAIN}@3" not in json.loads(result.stdout)["checkpoints"]
        assert f"{CHAIN}@3 is left alone: {place} is not its folder" in result.stderr
    assert all((folder / "adapter_model.safetensors").is_file() for folder in kept)
    assert linked.is_symlink()


def test_prune_keeps_what_an_attempt_needs_and_waits_for_one_that_runs(
    babylon: Babylon, folders: list[Path], database: Database
) -> None:
    without = json.loads(babylon("prune", "--keep", "1", "--dry-run", "--json").stdout)
    assert without["checkpoints"] == [f"{CHAIN}@1", f"{CHAIN}@3"]  # the branch is kept, and 2 that it begins at
    with database.connect() as conn:
        job = training_jobs.start_job(conn, window=HOURS[5], chain=CHAIN, parent_id=f"{CHAIN}-3")
        training_jobs.advance_job(conn, job.id, "submitted", external_id="job-1")
    shown = json.loads(babylon("prune", "--keep", "1", "--dry-run", "--json").stdout)
    assert shown["checkpoints"] == [f"{CHAIN}@1"]  # 3, which nothing else needs, is what the job trains from
    with chain_lock(database, CHAIN):
        assert babylon("prune").exit_code == 75


def test_prune_keeps_the_newest_branches_and_the_best_of_an_evaluation(
    babylon: Babylon, folders: list[Path], database: Database
) -> None:
    older = {"chain": f"{CHAIN}+older", "id": "older-2", "parent_id": f"{CHAIN}-1"}
    evaluated = (
        "INSERT INTO babylon_training.checkpoint_evaluations (checkpoint_id, evaluation, version, value, results) "
    )
    with database.connect() as conn:
        kept = checkpoints.by_window(conn, CHAIN, HOURS[1])
        assert kept and kept.dataset_id
        before = kept.created_at - timedelta(hours=1)
        made = checkpoint(2, HOURS[1], kept.dataset_id, path="/branch", created_at=before, **older)
        checkpoints.insert_checkpoint(conn, made)
        for number, value in ((1, 0.9), (3, 0.2), (4, None)):
            conn.execute(evaluated + "VALUES (%s, 'held out', '1', %s, '{}')", [f"{CHAIN}-{number}", value])
        conn.execute(evaluated + "VALUES ('another-chains', 'held out', '1', 5, '{}')")
    shown = json.loads(babylon("prune", "--keep", "1", "--dry-run", "--json").stdout)
    assert shown["checkpoints"] == [f"{CHAIN}+older@2", f"{CHAIN}@3"]
    assert json.loads(babylon("prune", "--keep", "2", "--dry-run", "--json").stdout)["checkpoints"] == []


def test_forget_removes_an_agent_and_says_who_saw_it(babylon: Babylon, folders: list[Path], database: Database) -> None:
    with database.connect() as conn:
        replace_window(conn, HOURS[3], [record(4, window=HOURS[3]), record(7, window=HOURS[3])], [])
        insert_calls(conn, [inference_call(0, agent_id=None, trajectory_id="t4"), inference_call(1, agent_id="a7")])
    tried = json.loads(babylon("forget", "--agent", "a4", "--json").stdout)
    assert tried["removed"] is False
    with database.connect() as conn:
        assert len(read_window(conn, HOURS[3])) == 2
    told = json.loads(babylon("forget", "--agent", "a4", "--yes", "--json").stdout)
    assert (
        told["rows"]
        == tried["rows"]
        == {"feedback": 0, "calls": 1, "trajectories": 1, "scores": 0, "samples": 1, "judgments": 0, "answers": 0}
        | {"late_samples": 0, "datasets": 1}
    )
    assert told["windows"] == tried["windows"] == [HOURS[3]]
    assert told["seen_by"] == {f"{CHAIN}@4": "trained on it", f"{CHAIN}@5": f"trained from {CHAIN}@4"}
    with database.connect() as conn:
        assert [one.agent_id for one in read_window(conn, HOURS[3])] == ["a7"]
        made = checkpoints.by_window(conn, CHAIN, HOURS[3])
        assert made and made.dataset_id
        with pytest.raises(CorruptLedger, match="forgotten"):
            load_dataset(conn, made.dataset_id)
    assert babylon("forget", "--agent", "a4", "--yes").exit_code == 1
