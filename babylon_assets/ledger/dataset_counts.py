"""How much a dataset holds, by its counts alone: what every command may ask, without the libraries of frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from babylon_assets.ledger.specification import TRAINING_DATASETS


class DatasetCounts(NamedTuple):
    """How many samples and trainable tokens a dataset has, and all of its counts by name."""

    samples: int
    tokens: int
    counts: Mapping[str, int]


class OwnReward(NamedTuple):
    """The mean and the standard deviation of the known rewards of a window's own samples.

    None without any, and where they are beyond a float.
    """

    mean: float | None
    std: float | None


def summarize_rewards(rewards: Sequence[float]) -> OwnReward:
    """The mean and the standard deviation of rewards, over their number."""
    mean = sum(rewards) / len(rewards) if rewards else math.nan
    variance = sum((reward - mean) * (reward - mean) for reward in rewards) / max(1, len(rewards))
    return OwnReward(
        mean if math.isfinite(mean) else None,
        math.sqrt(variance) if math.isfinite(variance) and rewards else None,
    )


def read_own_reward(conn: Connection[Any], dataset_id: str | None, window: str | None) -> OwnReward:
    """The rewards of a window's own samples in a dataset, as they were when it was frozen."""
    query = """
        SELECT reward FROM babylon_training.training_dataset_samples
        WHERE dataset_id = %s AND starts_with(group_key, %s) AND reward IS NOT NULL"""
    return summarize_rewards([reward for (reward,) in conn.execute(query, [dataset_id, f"{window}/"])])


def read_counts(conn: Connection[Any], dataset_id: str | None) -> DatasetCounts | None:
    """The counts of a dataset; None without one."""
    query = TRAINING_DATASETS.select("WHERE id = %s", "samples", "trainable_tokens", "counts")
    row = conn.execute(query, [dataset_id]).fetchone() if dataset_id else None
    return None if row is None else DatasetCounts(*row)
