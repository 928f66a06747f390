"""The job of the whole line: the assets of one window, in one run.

When it runs, and for which window, is decided by a person, the command line or a sensor.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

LINE = "train_window"
DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
TRAINING = ("model_checkpoints", "checkpoint_evaluations", "promoted_model")


def build_line_job(assets: list[dg.AssetsDefinition]) -> UnresolvedAssetJobDefinition:
    """Read, score, build the dataset, train, evaluate and judge one window; a run per window, oldest first."""
    return dg.define_asset_job(
        LINE,
        selection=dg.AssetSelection.assets(*assets),
        description=(
            "The whole line for one window: read its trajectories, score them, freeze the dataset, train the next "
            "checkpoint from the live one, evaluate it, promote or refuse it. Safe to run again: unchanged input "
            "writes nothing new."
        ),
        tags={"babylon/line": "window"},
    )
