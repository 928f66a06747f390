"""The six assets of the line, a module each and nothing else: what it reads, which function it calls, what it shows.

Every asset has a partition for each window. A module declares its asset (`stage`) and makes one window of it; how
windows run is in `runtime`, the checks in `checks`, shared metadata in `metadata`.

Read, score and freeze are one step, not three, because a window is the unit: it is ready for training as soon as its
own three stages are done, its failure costs no other window anything, and a month of hours is one pass over the
windows. Each asset can still be selected alone.
"""

import dagster as dg

from babylon_assets.orchestration.assets import (
    checkpoint_evaluations,
    model_checkpoints,
    promoted_model,
    raw_trajectories,
    scored_trajectories,
    training_datasets,
)
from babylon_assets.orchestration.runtime import windowed_assets
from babylon_assets.orchestration.unrecorded_windows import passing_unrecorded

#: Limits how many windows of all runs are trained at once: one.
POOL = "training"


def build_assets(windows: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets in the order of the line."""
    read, score, freeze, train, evaluate, promote = (
        passing_unrecorded(module.stage(windows))
        for module in (
            raw_trajectories,
            scored_trajectories,
            training_datasets,
            model_checkpoints,
            checkpoint_evaluations,
            promoted_model,
        )
    )
    return [
        windowed_assets("window_data", [read, score, freeze], windows),
        windowed_assets("model_checkpoints", [train], windows, in_order=True, pool=POOL),
        windowed_assets("checkpoint_evaluations", [evaluate], windows),
        windowed_assets("promoted_model", [promote], windows),
    ]
