"""A code location as one writes it without our ways: an empty asset, and a chain of checkpoints that is ordered by its
own previous hour. They compute nothing, so that what they take is Dagster's. Partitions are those of the product.
"""

import dagster as dg

from babylon_assets.config.settings import load_settings
from babylon_assets.orchestration.partitions import build_partitions

WINDOWS = build_partitions(load_settings())
PREVIOUS = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


@dg.asset(partitions_def=WINDOWS)
def empty() -> None:
    """Nothing."""


@dg.asset(partitions_def=WINDOWS)
def data() -> None:
    """What a checkpoint is made from."""


@dg.asset(
    partitions_def=WINDOWS,
    deps=[data, dg.AssetDep("checkpoints", partition_mapping=PREVIOUS)],
)
def checkpoints() -> None:
    """Made from the hour's data and the checkpoint of the hour before."""


defs = dg.Definitions(assets=[empty, data, checkpoints], executor=dg.in_process_executor)
