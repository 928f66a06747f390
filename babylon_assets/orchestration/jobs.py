"""The job of the whole line: the assets of one window, in one run.

When it runs, and for which window, is decided by a person, the command line or a sensor.
"""

from __future__ import annotations

import dagster as dg

from babylon_assets.orchestration.runtime import LINE, LINE_TAG, AssetJob

REFRESH = "refresh_window"
DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
TRAINING = ("model_checkpoints", "checkpoint_evaluations", "promoted_model")


def build_line_job(assets: list[dg.AssetsDefinition]) -> AssetJob:
    """Read, score, build the dataset, train, evaluate and judge one window; a run per window, oldest first."""
    return dg.define_asset_job(
        LINE,
        selection=dg.AssetSelection.assets(*assets),
        description=(
            "The whole line for one window: read its trajectories, score them, freeze the dataset, train the next "
            "checkpoint from the promoted one, evaluate it, promote or reject it. Safe to run again: unchanged input "
            "writes nothing new."
        ),
        tags={LINE_TAG: "window"},
    )


def build_refresh_job(*, retrain: bool) -> AssetJob:
    """Read, score and freeze a window again whose rows have changed, and with `retrain` train it beside the chain."""
    names = (*DATA, TRAINING[0]) if retrain else DATA
    return dg.define_asset_job(
        REFRESH,
        selection=dg.AssetSelection.assets(*names),
        description=(
            "A window whose rows or outcomes have changed: read it, score it and freeze its dataset again. With "
            "LATE_DATA=carry its late samples join the next window, with LATE_DATA=retrain it is trained again on a "
            "branch; the chain is never rewritten."
        ),
        tags={LINE_TAG: "window"},
    )
