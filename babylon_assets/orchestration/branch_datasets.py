"""The dataset of a branch: what is kept of a window, scored and frozen by the settings of the moment.

The window's scores, its dataset and its row are the chain's own; none of them is written here.
"""

from __future__ import annotations

import dagster as dg

from babylon_assets.domain.datasets import scores_by_step
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import windows
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets.raw_trajectories import is_unchanged
from babylon_assets.orchestration.freezing import freeze_beside
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.scoring import score_beside
from babylon_assets.training.branches import BranchDataset


def freeze_for_branch(installation: Installation, window: str) -> BranchDataset:
    """Score what is kept of a window and keep a dataset of it, for a branch. The window must have been read.

    Raises:
        SettingsError: a scorer of the user's cannot be loaded or failed, a weight names no scorer.
        PermanentError: a check that stops a window fails; the judge refuses the key or has no such model.
    """
    settings = installation.settings
    scored = score_beside(installation, window)
    dataset = freeze_beside(installation, window, scores_by_step(scored.scores))
    with installation.connect() as conn:
        stored = checks.stored_dataset(conn, window, dataset.id, installation.environment.result_keys)
    for result in (checks.understood(scored.understanding, settings.rewards.least_understood), *stored):
        if not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
            raise PermanentError(f"nothing was trained, for the check {result.check_name} fails: {result.description}")
    weights = {f"{name}@{version}": scored.weights[name] for name, version in sorted(scored.versions.items())}
    return BranchDataset(dataset.id, weights)


def was_read(installation: Installation, window: str) -> bool:
    """Whether the rows of a window were read."""
    with installation.connect() as conn:
        row = windows.get_window(conn, window)
    return row is not None and row.fingerprint is not None


def has_other_rows(installation: Installation, window: str) -> bool:
    """Whether the environment has other rows of a window by now than are kept of it."""
    with installation.connect_source() as source:
        recorded = installation.environment.has_record(source)
    return recorded and not is_unchanged(installation, window)
