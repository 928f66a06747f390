"""The assets of the line: raw and scored trajectories and datasets (`window_data`), checkpoints, evaluations, the gate.

Every asset has one partition per window. What makes one window of an asset reads, calls one function of the core,
writes and returns metadata; rules of the domain do not live here. `ranges` runs windows, one or many; `build_assets`
makes all assets for one set of hourly partitions.
"""

from __future__ import annotations

import dagster as dg

from babylon_assets.orchestration.assets.checkpoint_evaluations import build_checkpoint_evaluations
from babylon_assets.orchestration.assets.model_checkpoints import build_model_checkpoints
from babylon_assets.orchestration.assets.promoted_model import build_promoted_model
from babylon_assets.orchestration.window_data import build_window_data


def build_assets(windows: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets in the order of the line."""
    return [
        build_window_data(windows),
        build_model_checkpoints(windows),
        build_checkpoint_evaluations(windows),
        build_promoted_model(windows),
    ]
