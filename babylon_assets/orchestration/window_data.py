"""The three data assets of a window as one step: read, score, freeze.

One step, and not three, because a window is the unit: it is ready for training as soon as its own three stages are
done, its failure costs no other window anything, and a month of hours is one pass over the windows. Each asset can
still be selected alone. The stages live in the assets' own modules, how windows are run in `ranges`.
"""

from functools import partial

import dagster as dg

from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories, training_datasets
from babylon_assets.orchestration.metadata import declared
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.ranges import Outputs, Stage, run_windows

STAGES = (raw_trajectories, scored_trajectories, training_datasets)


def build_window_data(windows: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The assets raw_trajectories, scored_trajectories and training_datasets, with one partition per window."""

    @dg.multi_asset(
        name="window_data",
        specs=[declared(stage.spec()) for stage in STAGES],
        check_specs=[spec for stage in STAGES for spec in checks.specs(stage.NAME, stage.CHECKS, windows)],
        partitions_def=windows,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def window_data(context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]) -> Outputs:
        stages: dict[str, Stage] = {
            raw_trajectories.NAME: partial(raw_trajectories.read, installation),
            scored_trajectories.NAME: partial(scored_trajectories.score, installation),
            training_datasets.NAME: partial(training_datasets.freeze, installation),
        }
        yield from run_windows(context, installation, stages)

    return window_data
