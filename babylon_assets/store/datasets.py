"""The tables `training_datasets` and `training_dataset_samples`: frozen datasets under the hash of their content.

The body is the dataset itself; the rows of samples are an index of it for lineage and for looking at.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from psycopg import Connection

from babylon_assets.core import datasets
from babylon_assets.core.datasets import Dataset, Sample
from babylon_assets.core.errors import CorruptLedger
from babylon_assets.store.tables import TRAINING_DATASET_SAMPLES, TRAINING_DATASETS, json_value, pack_parts, unpack

_AGAIN = "materialize training_datasets for its window again"


def save_dataset(conn: Connection[Any], dataset: Dataset) -> bool:
    """Keep a dataset; False when it was there already. The primary key on the content's hash is what makes it once.

    Runs in the caller's transaction, or in one of its own.
    """
    row = {
        "id": dataset.id,
        "window_id": dataset.window,
        "samples": len(dataset.samples),
        "trainable_tokens": sum(sample.tokens for sample in dataset.samples if sample.trains_as != "skip"),
        "counts": json_value(dataset.counts),
        "body": pack_parts(datasets.encoded_parts(dataset)),
    }
    with conn.transaction():
        added = conn.execute(TRAINING_DATASETS.insert(row, "ON CONFLICT (id) DO NOTHING RETURNING id"), row)
        if added.fetchone() is None:
            return False
        TRAINING_DATASET_SAMPLES.copy(
            conn,
            tuple(TRAINING_DATASET_SAMPLES.columns),
            (_row(dataset.id, sample) for sample in dataset.samples),
        )
    return True


def _row(dataset_id: str, sample: Sample) -> tuple[Any, ...]:
    values = {"dataset_id": dataset_id, "group_key": sample.group}
    return tuple(values[name] if name in values else getattr(sample, name) for name in TRAINING_DATASET_SAMPLES.columns)


def load_dataset(conn: Connection[Any], dataset_id: str) -> Dataset:
    """The dataset with this id, exactly as it was saved.

    Raises:
        CorruptLedger: when it is not there, or its bytes are not what the id names.
    """
    wanted = TRAINING_DATASETS.select("WHERE id = %s", "body")
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(wanted, [dataset_id]).fetchone()
    if row is None:
        raise CorruptLedger(f"dataset {dataset_id} is not kept; {_AGAIN}")
    if not row[0]:
        raise CorruptLedger(f"dataset {dataset_id} was emptied, it held answers of a forgotten agent; {_AGAIN}")
    try:
        dataset = datasets.decode(unpack(row[0]))
    except ValueError as error:
        raise CorruptLedger(f"dataset {dataset_id} cannot be read ({error}); {_AGAIN}") from None
    if dataset.id != dataset_id:
        raise CorruptLedger(f"dataset {dataset_id} holds the content of {dataset.id}; {_AGAIN}")
    return dataset


def dataset_frame(conn: Connection[Any], dataset_id: str) -> pd.DataFrame:
    """One row per sample: ids, group_key, policy, reward, advantage, trains_as, skip_reason, tokens; no texts."""
    columns = list(TRAINING_DATASET_SAMPLES.columns)
    wanted = TRAINING_DATASET_SAMPLES.select("WHERE dataset_id = %s ORDER BY group_key, sample_id")
    frame = pd.DataFrame(conn.execute(wanted, [dataset_id]).fetchall(), columns=columns)
    return frame.astype({"reward": "float64", "advantage": "float64"})
