"""How much a dataset holds, by its counts alone: what every command may ask, without the libraries of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg import Connection

from babylon_assets.ledger.specification import TRAINING_DATASETS


class DatasetCounts(NamedTuple):
    """How many samples and trainable tokens a dataset has, and all of its counts by name."""

    samples: int
    tokens: int
    counts: Mapping[str, int]


def read_own_reward(conn: Connection[Any], dataset_id: str | None, window: str | None) -> float | None:
    """The mean of the known rewards of a window's own samples in a dataset, as they were when it was frozen."""
    query = """
        SELECT avg(reward) FROM babylon_training.training_dataset_samples
        WHERE dataset_id = %s AND starts_with(group_key, %s)"""
    ((mean,),) = conn.execute(query, [dataset_id, f"{window}/"]).fetchall()
    return None if mean is None else float(mean)


def read_counts(conn: Connection[Any], dataset_id: str | None) -> DatasetCounts | None:
    """The counts of a dataset; None without one."""
    query = TRAINING_DATASETS.select("WHERE id = %s", "samples", "trainable_tokens", "counts")
    row = conn.execute(query, [dataset_id]).fetchone() if dataset_id else None
    return None if row is None else DatasetCounts(*row)
