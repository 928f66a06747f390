"""Retraining a window beside the chain: a branch from the window's parent, and the chain as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from babylon_assets.cli.chain import tree_table
from babylon_assets.cli.train import report_branch
from babylon_assets.config.settings import Settings
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.errors import PermanentError, TrainingBusy
from babylon_assets.ledger import checkpoints, lineage
from babylon_assets.ledger import training_jobs as ledger
from babylon_assets.ledger.checkpoint_register import read_states
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database, chain_lock
from babylon_assets.ledger.windows import get_window
from babylon_assets.training import window_training
from babylon_assets.training.branches import BranchDataset
from babylon_assets.training.reproduction import reproduce
from babylon_assets.training.window_training import train_branch, train_window
from tests.training.backends.test_embedded import answered
from tests.training.conftest import Ready

FIRST, SECOND, THIRD = "2026-11-05T14:00", "2026-11-05T15:00", "2026-11-05T16:00"
CHAIN, BRANCH = "babylon-agent", "babylon-agent+2026-11-05T15"


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        gate=False, home=tmp_path / "home", base_model=str(tiny_base), gradient_tokens=512, lora_rank=4, max_kl=100
    )


@pytest.fixture
def samples(tiny_base: Path) -> list[Sample]:
    answers = answered(tiny_base, groups=3, size=3)
    return [msgspec.structs.replace(one, policy=f"{CHAIN}@0", policy_step=0) for one in answers]


@pytest.fixture
def trained(settings: Settings, database: Database, ready: Ready, samples: list[Sample]) -> list[Checkpoint]:
    """Three windows in their order; then the second's data changes."""
    for window in (FIRST, SECOND, THIRD):
        ready(window, samples)
        train_window(settings, database, window)
    ready(SECOND, samples[:6])
    return of(database, CHAIN)


def of(database: Database, chain: str) -> list[Checkpoint]:
    with database.connect() as conn:
        return checkpoints.chain(conn, chain)


def test_a_branch_begins_at_the_windows_parent_and_the_chain_stays(
    settings: Settings, database: Database, trained: list[Checkpoint]
) -> None:
    said = train_window(settings, database, SECOND)
    assert said.status == "superseded"
    assert f"babylon train {SECOND} --branch" in said.reason
    with database.connect() as conn:
        before = get_window(conn, SECOND)
    result = train_branch(settings, database, SECOND, dagster_run_id="run")
    (made,) = of(database, BRANCH)
    assert result.status == "trained"
    assert (made.parent_id, made.step, made.window_id) == (trained[1].id, 2, SECOND)
    assert made.dataset_id != trained[2].dataset_id
    assert made.weights_sha256 != trained[2].weights_sha256
    assert made.dagster_run_id == "run"
    assert Path(made.path).parts[-3:] == (BRANCH, "checkpoints", "0002")
    assert of(database, CHAIN) == trained
    with database.connect() as conn:
        assert get_window(conn, SECOND) == before
        assert checkpoints.head(conn, CHAIN) == trained[-1]
        table = tree_table(lineage.all_checkpoints(conn), read_states(conn), {})
    shown = {str(column.header): list(column.cells) for column in table.columns}
    assert shown["policy"] == [f"{CHAIN}@0", f"{CHAIN}@1", f"  {BRANCH}@2", f"{CHAIN}@2", f"{CHAIN}@3"]
    assert shown["state"] == ["base model", "no verdict", "branch", "no verdict", "no verdict"]


def test_the_same_data_is_one_branch_and_other_data_another(
    settings: Settings,
    database: Database,
    trained: list[Checkpoint],
    ready: Ready,
    samples: list[Sample],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = train_branch(settings, database, SECOND)
    again = train_branch(settings, database, SECOND)
    assert (again.status, again.checkpoint) == ("unchanged", one.checkpoint)
    with database.connect() as conn:
        own = get_window(conn, SECOND)
    assert own is not None
    report_branch(database, settings, SECOND, None, BranchDataset(own.dataset_id or "", {"outcome@1": 1.0}))
    first, *lines, third = capsys.readouterr().out.splitlines()  # nothing of what the chain made of the window
    second = "  " + " ".join(line.strip() for line in lines)
    assert (first, third) == (f"{SECOND}  beside the chain", f"  dataset   {own.dataset_id}")
    assert (
        f" {CHAIN}@1 -> {BRANCH}@2, unchanged: " in second
        and second.startswith("  branch ")
        and "--branch" not in second
    )
    ready(SECOND, samples[3:])
    other = train_branch(settings, database, SECOND)
    assert other.checkpoint
    assert (other.checkpoint.chain, other.checkpoint.parent_id) == (f"{BRANCH}.2", trained[1].id)
    with pytest.raises(PermanentError, match="another name"):
        train_branch(settings, database, SECOND, "2026-11-05T15")
    with pytest.raises(PermanentError, match="letters"):
        train_branch(settings, database, SECOND, "a+b")


def test_a_named_branch_goes_on_with_later_windows_only(
    settings: Settings, database: Database, trained: list[Checkpoint]
) -> None:
    for window in (SECOND, THIRD):
        assert train_branch(settings, database, window, "late").status == "trained"
    first, second = of(database, f"{CHAIN}+late")
    assert (first.parent_id, second.parent_id, second.step) == (trained[1].id, first.id, 3)
    with pytest.raises(PermanentError, match="later window"):
        train_branch(settings, database, FIRST, "late")
    assert train_branch(settings, database, FIRST).parent == trained[0]


def test_a_window_that_the_chain_never_trained_branches_from_the_one_before(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    for window in (FIRST, THIRD):
        ready(window, samples)
        train_window(settings, database, window)
    ready(SECOND, samples)
    result = train_branch(settings, database, SECOND)
    assert result.parent
    assert result.parent.window_id == FIRST
    with database.connect() as conn:
        row = get_window(conn, SECOND)
    assert row and (row.status, row.checkpoint_id) == ("ready", None)


def test_a_window_that_the_chain_has_not_passed_is_no_branch(
    settings: Settings, database: Database, ready: Ready, samples: list[Sample]
) -> None:
    ready(FIRST, samples)
    with pytest.raises(PermanentError, match="without --branch"):
        train_branch(settings, database, FIRST)
    train_window(settings, database, FIRST)
    ready(SECOND, samples)
    with pytest.raises(PermanentError, match="without --branch"):
        train_branch(settings, database, SECOND)


def test_the_chain_and_its_branches_are_trained_one_at_a_time(
    settings: Settings, database: Database, trained: list[Checkpoint]
) -> None:
    with chain_lock(database, CHAIN), pytest.raises(TrainingBusy):
        train_branch(settings, database, SECOND)


def test_the_hosted_service_begins_no_branch(settings: Settings, database: Database, trained: list[Checkpoint]) -> None:
    hosted = settings.replace(training_backend="serverless", wandb_api_key="a key", base_model=None)
    with pytest.raises(PermanentError, match="begins no branch"):
        train_branch(hosted, database, SECOND)
    assert of(database, BRANCH) == []


def test_a_killed_branch_is_taken_up(
    settings: Settings, database: Database, trained: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process at this very place."""

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(window_training, "_record", kill)
        with pytest.raises(Killed):
            train_branch(settings, database, SECOND)
    assert of(database, BRANCH) == []
    made = train_branch(settings, database, SECOND).checkpoint
    assert of(database, BRANCH) == [made]
    with database.connect() as conn:
        assert [job.state for job in ledger.list_jobs(conn, BRANCH, SECOND)] == ["failed", "trained"]


def test_a_branch_is_reproduced_to_the_same_weights(
    settings: Settings, database: Database, trained: list[Checkpoint], tmp_path: Path
) -> None:
    made = train_branch(settings, database, SECOND).checkpoint
    assert made
    assert reproduce(settings, database, made, tmp_path / "again").same


def test_lags_are_counted_along_the_tree(settings: Settings, database: Database, trained: list[Checkpoint]) -> None:
    made = train_branch(settings, database, SECOND).checkpoint
    assert made
    names = [f"{CHAIN}@{step}" for step in range(5)] + [f"{BRANCH}@2", "gpt-4o"]
    with database.connect() as conn:
        assert lineage.policy_lags(conn, made, names) == {
            f"{CHAIN}@0": 2,
            f"{CHAIN}@1": 1,
            f"{CHAIN}@2": 2,  # one back to where the branch begins, one on
            f"{CHAIN}@3": 3,
            f"{BRANCH}@2": 0,
        }
        assert lineage.policy_lags(conn, trained[-1], names)[f"{BRANCH}@2"] == 3


def test_a_branchs_answers_are_not_taken_for_those_of_the_chain(
    settings: Settings, database: Database, trained: list[Checkpoint], ready: Ready, samples: list[Sample]
) -> None:
    """Text-only answers of `<branch>@2` are recomputed under the branch's weights, not under those of the chain's 2."""
    made = train_branch(settings, database, SECOND).checkpoint
    assert made
    fourth = "2026-11-05T17:00"
    texts = [
        msgspec.structs.replace(
            one, policy=f"{BRANCH}@2", policy_step=2, prompt_token_ids=None, token_ids=None, logprobs=None,
            trains_as="recompute",
        )
        for one in samples
    ]  # fmt: skip
    ready(fourth, texts)
    one = train_window(settings, database, fourth)
    assert one.checkpoint
    assert one.checkpoint.metrics["recomputed_samples"] == len(texts)
    assert one.steps[0]["ratio_min"] < 1 - 1e-3  # the parent is another policy than the one that answered
    as_chains = [msgspec.structs.replace(sample, policy=f"{CHAIN}@3", policy_step=3) for sample in texts]
    ready("2026-11-05T18:00", as_chains)
    strict = settings.replace(max_policy_lag=1)
    assert train_window(strict, database, "2026-11-05T18:00").checkpoint  # one behind its own chain's head
    ready("2026-11-05T19:00", texts)
    assert train_window(strict, database, "2026-11-05T19:00").status == "skipped"  # far along the tree
