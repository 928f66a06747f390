"""The four assets of the line, one module each: raw and scored trajectories, training datasets, model checkpoints.

Every asset has one partition per window. Its body reads, calls one function of the core, writes and returns metadata;
rules of the domain do not live here. `build_assets` makes them all for one set of hourly partitions.
"""

from __future__ import annotations

import dagster as dg

from babylon_assets.assets.model_checkpoints import build_model_checkpoints
from babylon_assets.assets.raw_trajectories import build_raw_trajectories
from babylon_assets.assets.scored_trajectories import build_scored_trajectories
from babylon_assets.assets.training_datasets import build_training_datasets


def build_assets(windows: dg.HourlyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The four assets in the order of the line."""
    return [
        build_raw_trajectories(windows),
        build_scored_trajectories(windows),
        build_training_datasets(windows),
        build_model_checkpoints(windows),
    ]
