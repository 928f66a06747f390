"""The six assets of the line, a module each and nothing else: what it reads, which function it calls, what it shows.

Every asset has a partition for each window. A module declares its asset (`stage`) and makes one window of it; how
windows run is in `runtime`, the checks in `checks`, shared metadata in `metadata`.

Read, score and freeze are one step, not three, because a window is the unit: it is ready for training as soon as its
own three stages are done, its failure costs no other window anything, and a month of hours is one pass over the
windows. Each asset can still be selected alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import dagster as dg

from babylon_assets.environments.base import Environment
from babylon_assets.orchestration.assets import (
    checkpoint_evaluations,
    model_checkpoints,
    promoted_model,
    raw_trajectories,
    scored_trajectories,
    training_datasets,
)
from babylon_assets.orchestration.runtime import Stage, windowed_assets
from babylon_assets.orchestration.unrecorded_windows import passing_unrecorded

#: Limits how many windows of all runs are trained at once: one.
POOL = "training"


def build_assets(windows: dg.TimeWindowPartitionsDefinition, environment: Environment) -> list[dg.AssetsDefinition]:
    """The assets in the order of the line; their pages have the environment's own notes as well."""
    read, score, freeze, train, evaluate, promote = (
        passing_unrecorded(_with_note(stage, environment.asset_notes))
        for stage in (
            raw_trajectories.stage(windows, environment),
            scored_trajectories.stage(windows, environment),
            training_datasets.stage(windows),
            model_checkpoints.stage(windows),
            checkpoint_evaluations.stage(windows),
            promoted_model.stage(windows),
        )
    )
    return [
        windowed_assets("window_data", [read, score, freeze], windows),
        windowed_assets("model_checkpoints", [train], windows, in_order=True, pool=POOL),
        windowed_assets("checkpoint_evaluations", [evaluate], windows),
        windowed_assets("promoted_model", [promote], windows),
    ]


def _with_note(stage: Stage, notes: Mapping[str, str]) -> Stage:
    """The stage, whose asset's page ends with what the environment says of it, if it says anything."""
    note = notes.get(stage.spec.key.to_user_string())
    if note is None:
        return stage
    return replace(stage, spec=stage.spec.replace_attributes(description=f"{stage.spec.description}{note}"))
