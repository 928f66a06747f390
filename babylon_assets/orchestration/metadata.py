"""What the assets have in common: group, owners, the columns of their tables, the forms of their metadata.

Numbers are plain ints and floats, because Dagster plots those over the partitions; what is not known is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import dagster as dg

from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import specification
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.table import Table
from babylon_assets.report.pictures import as_markdown

GROUP = "babylon"
OWNERS = ["team:babylon"]
CODE_VERSION = "1"
FRAMES = "frames"
#: The table whose columns an asset's page shows.
TABLE_OF = {
    "raw_trajectories": specification.RAW_TRAJECTORIES,
    "scored_trajectories": specification.TRAJECTORY_SCORES,
    "training_datasets": specification.TRAINING_DATASET_SAMPLES,
    "model_checkpoints": specification.MODEL_CHECKPOINTS,
    "checkpoint_evaluations": specification.CHECKPOINT_EVALUATIONS,
    "promoted_model": specification.PROMOTIONS,
}
#: A window that has no checkpoint of its own, in metadata and in the words of a check.
PASSED_THROUGH, NO_CHECKPOINT = "passed through", "the window has no checkpoint of its own"


def declared(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's declaration with what all assets have in common: its frames, and its table with each column."""
    common = spec.replace_attributes(group_name=GROUP, owners=OWNERS, code_version=CODE_VERSION)
    return common.merge_attributes(metadata=_columns(TABLE_OF[spec.key.to_user_string()])).with_io_manager_key(FRAMES)


def _columns(table: Table) -> dict[str, Any]:
    """The metadata by which Dagster shows a table's name and its columns with their meanings."""
    columns = [
        dg.TableColumn(
            name,
            column.type,
            description=column.meaning,
            constraints=dg.TableColumnConstraints(nullable=table.view or column.null),
        )
        for name, column in table.columns.items()
    ]
    named = f"{table.schema}.{table.name}"
    return {"dagster/table_name": named, "dagster/column_schema": dg.TableSchema(columns)}


def numbers(values: Mapping[str, float | int | None]) -> dict[str, dg.MetadataValue[Any]]:
    """Each known number as a metadata value that Dagster plots; None and NaN are left out, a bool becomes 0 or 1."""
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return {
        name: dg.MetadataValue.float(value) if isinstance(value, float) else dg.MetadataValue.int(int(value))
        for name, value in known.items()
    }


def texts(values: Mapping[str, str | None]) -> dict[str, dg.MetadataValue[Any]]:
    """Each text that is there as a metadata value."""
    return {name: dg.MetadataValue.text(value) for name, value in values.items() if value}


def about_checkpoint(
    made: Checkpoint | None, status: str, said: Mapping[str, str | None], counted: Mapping[str, float | int | None]
) -> dict[str, dg.MetadataValue[Any]]:
    """The metadata of an asset that looks at a window's checkpoint: which one it is, what became of it, then the rest.

    Args:
        status: where there is a checkpoint; a window without one was passed through.
        said, counted: as of `texts` and `numbers`.
    """
    named = {
        "status": status if made else PASSED_THROUGH,
        "checkpoint": policy_name(made.chain, made.step) if made else None,
    }
    return {**texts({**named, **said}), **numbers(counted)}


def page(asset: str, window: str) -> dg.MetadataValue[Any]:
    """A link to the page of an asset's window, on whatever host the UI is."""
    return dg.MetadataValue.url(f"/assets/{asset}?view=partitions&partition={quote(window)}")


def picture(image: bytes, alt: str) -> dg.MetadataValue[Any]:
    """A picture that the UI shows inline."""
    return dg.MetadataValue.md(as_markdown(image, alt))
