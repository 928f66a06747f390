"""The asset model_checkpoints: what a window's dataset made of the checkpoint before it.

Training itself, and the rules of the chain, live in `training.window_training`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg

from babylon_assets.domain.display_text import shorten_id
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.site_links import link_checkpoint
from babylon_assets.domain.token_counts import TRAINED
from babylon_assets.evaluation.gate_runner import decide_head
from babylon_assets.ledger import verdicts, windows
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.dataset_counts import OwnReward, read_own_reward
from babylon_assets.ledger.windows import WindowRow
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets.training_datasets import NAME as DATASETS
from babylon_assets.orchestration.metadata import (
    code,
    declare,
    numbers,
    page,
    picture,
    show,
    site_page,
    tally,
    texts,
)
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult
from babylon_assets.report.learning_curve import CurveMark, CurvePoint, draw_learning_curve
from babylon_assets.report.pictures import draw_training_steps
from babylon_assets.training.window_training import TrainedWindow, train_branch, train_window

NAME = "model_checkpoints"
CHECKS = (checks.TRAINED,)
CURVE_WINDOWS = 72
#: Nothing was to be trained, by design and with a reason.
PASSED_THROUGH = ("thin", "superseded")

DESCRIPTION = f"""
The next checkpoint of the chain, trained on this window's dataset from the promoted checkpoint.

- **One chain, one head.** A partition depends on the one before it, and its parent is the promoted checkpoint. A
  checkpoint that a killed run left without a verdict gets its verdict first. A rejected one is never a parent. The pool
  `training` and a lock in PostgreSQL let one training run at a time.
- A **thin** window is green and has no checkpoint of its own. The parent stays the newest.
- Training that saw **no token** makes no checkpoint. The window is `skipped` with the reason, and the check
  `{checks.TRAINED}` fails.
- A window that was trained on the same dataset is not trained again. A window **before** the newest checkpoint's is not
  trained afterwards: it is green, with the reason, because the chain is not rewritten.

A checkpoint's id is the hash of what it was made from: parent, dataset, base model, settings, seed, versions.
"""


def stage(partitions: dg.TimeWindowPartitionsDefinition) -> Stage:
    """The asset's declaration, each window depending on the one before it, and what makes one of them."""
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    spec = dg.AssetSpec(
        NAME,
        deps=[DATASETS, dg.AssetDep(NAME, partition_mapping=before)],
        description=DESCRIPTION,
        kinds={"pytorch", "postgres"},
        tags={"babylon/stage": "train"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, partitions), make=train)


def train(installation: Installation, window: str, run_id: str) -> WindowResult:
    """Train a window, where training is not switched off, and say what came of it."""
    if not installation.settings.training.enabled:
        return _switched_off()
    decide_head(installation.settings, installation.database, run_id)
    trained = train_window(installation.settings, installation.database, window, run_id)
    if (
        trained.status == "superseded"
        and trained.checkpoint
        and installation.settings.automation.late_data == "retrain"
    ):
        beside = train_branch(installation.settings, installation.database, window, dagster_run_id=run_id)
        trained = replace(trained, reason=f"{trained.reason}; {_branch(beside)}")
    checkpoint = trained.checkpoint
    return WindowResult(
        metadata=show(
            {
                "learning_curve": lambda: _play_metadata(installation, window, checkpoint),
                "training": lambda: _metadata(trained, installation.settings.home),
                "training_steps": lambda: _steps_picture(trained),
            }
        ),
        data_version=checkpoint.id if checkpoint else None,
        checks=[_trained_check(window, trained)],
        made_from={DATASETS: checkpoint.dataset_id} if checkpoint and checkpoint.dataset_id else {},
    )


def _branch(beside: TrainedWindow) -> str:
    checkpoint = beside.checkpoint
    return (
        f"trained beside it as {policy_name(checkpoint.chain, checkpoint.step)}"
        if checkpoint
        else f"not beside it: {beside.reason}"
    )


def _switched_off() -> WindowResult:
    reason = "training is switched off: TRAIN_RL_LOCAL is false"
    return WindowResult(
        metadata=texts({"status": "switched off", "reason": reason}),
        checks=[dg.AssetCheckResult(check_name=checks.TRAINED, passed=True, description=reason)],
    )


def _metadata(trained: TrainedWindow, home: Path) -> dict[str, dg.MetadataValue]:
    checkpoint, parent = trained.checkpoint, trained.parent
    measured = checkpoint.metrics if checkpoint else {}
    return {
        **texts(
            {
                "status": "trained" if checkpoint else trained.status,
                "reason": trained.reason,
                "method": trained.method,
                "checkpoint": policy_name(checkpoint.chain, checkpoint.step) if checkpoint else None,
                "checkpoint_id": shorten_id(checkpoint.id) if checkpoint else None,
                "parent": policy_name(parent.chain, parent.step) if parent else None,
                "dataset_id": shorten_id(checkpoint.dataset_id) if checkpoint and checkpoint.dataset_id else None,
                "path": checkpoint.path.removeprefix(f"{home}/") if checkpoint else None,
            }
        ),
        **(_pages(checkpoint, parent) if checkpoint else {}),
        **numbers({"step": checkpoint.step if checkpoint else None, "trained_tokens": trained.trained_tokens}),
        **numbers({name: value for name, value in measured.items() if name != TRAINED}),
        **({"left_out": tally(trained.left_out)} if trained.left_out else {}),
    }


def _steps_picture(trained: TrainedWindow) -> dict[str, dg.MetadataValue]:
    steps = trained.steps
    return {"training_steps": picture(draw_training_steps(steps), "optimizer steps")} if steps else {}


def _pages(checkpoint: Checkpoint, parent: Checkpoint | None) -> dict[str, dg.MetadataValue]:
    """Where to go from a checkpoint: to its parent and its dataset, to the run that made it, to its project at W&B."""
    hosted = re.match(r"wandb-artifact:///([^/]+)/([^/]+)/", checkpoint.path)
    return {
        "site_page": site_page(link_checkpoint(policy_name(checkpoint.chain, checkpoint.step))),
        **({"parent_page": page(NAME, parent.window_id)} if parent and parent.window_id else {}),
        **({"dataset_page": page(DATASETS, checkpoint.window_id)} if checkpoint.window_id else {}),
        **({"run": dg.MetadataValue.dagster_run(checkpoint.dagster_run_id)} if checkpoint.dagster_run_id else {}),
        **({"wandb_page": dg.MetadataValue.url(f"https://wandb.ai/{hosted[1]}/{hosted[2]}")} if hosted else {}),
    }


def _play_metadata(
    installation: Installation, window: str, checkpoint: Checkpoint | None
) -> dict[str, dg.MetadataValue]:
    """How the window was played, and the learning curve up to it, at most three days of it.

    The rewards are those of the dataset that the checkpoint was trained on, whatever the window has come to since.
    """
    with installation.connect() as conn:
        rows = [row for row in windows.list_windows(conn) if row.window_id <= window]
        standings = verdicts.standings(conn, installation.settings.model_name)
        row = rows[-1]
        reward = OwnReward(row.reward_mean, row.reward_std)
        if checkpoint is not None and checkpoint.dataset_id != row.dataset_id:
            reward = read_own_reward(conn, checkpoint.dataset_id, window)
    return {
        "learning_curve": picture(draw_curve(rows[-CURVE_WINDOWS:], standings), "learning curve"),
        **numbers({"reward_mean": reward.mean, "reward_std": reward.std, **(row.reference or {})}),
    }


def draw_curve(rows: list[WindowRow], standings: Mapping[str, str]) -> str:
    """The learning curve of windows as SVG.

    Args:
        standings: what was decided of each window's checkpoint, as of `ledger.verdicts.standings`.
    """
    known = [
        CurvePoint(row.window_id, row.reward_mean, row.reference or {}) for row in rows if row.reward_mean is not None
    ]
    return draw_learning_curve(known, [CurveMark(window, decision) for window, decision in sorted(standings.items())])


def _trained_check(window: str, trained: TrainedWindow) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=checks.TRAINED,
        passed=trained.status in PASSED_THROUGH or (trained.checkpoint is not None and trained.trained_tokens > 0),
        description=code(trained.reason) if trained.reason else None,
        metadata={"window": window, "trained_tokens": trained.trained_tokens, "left_out": tally(trained.left_out)},
    )
