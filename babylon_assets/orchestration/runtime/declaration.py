"""Declaring assets that run window by window: one step for each group of stages, with a partition for each window."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import pool_waiting
from babylon_assets.orchestration.runtime.ranges import Outputs, Stage, run_windows


def windowed_assets(
    name: str,
    stages: Sequence[Stage],
    windows: dg.PartitionsDefinition[Any],
    *,
    in_order: bool = False,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """The assets of a group of stages, made by one step that goes over all windows of its run.

    Args:
        name: of the step.
        stages: in the order in which a window passes through them.
        in_order: each window is made from the one before it.
        pool: what limits how many such steps run at once.
    """
    pool_waiting.install()

    @dg.multi_asset(
        name=name,
        specs=[stage.spec for stage in stages],
        check_specs=[check for stage in stages for check in stage.checks],
        partitions_def=windows,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
    )
    def step(context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]) -> Outputs:
        yield from run_windows(context, installation, stages, in_order=in_order)

    return step
