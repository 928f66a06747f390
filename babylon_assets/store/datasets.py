"""The tables `training_datasets`, `training_dataset_chats` and `training_dataset_samples`: frozen datasets under the
hash of their content.

The body is what is hashed, and names the texts, one chat a trajectory, by their hashes; the rows of samples are an
index of it for lineage and for looking at.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pandas as pd
from psycopg import Connection

from babylon_assets.core import frozen
from babylon_assets.core.errors import CorruptLedger
from babylon_assets.core.lineage import canonical_json
from babylon_assets.core.samples import Dataset, DatasetDraft
from babylon_assets.store.packing import pack, pack_parts, unpack
from babylon_assets.store.tables import (
    TRAINING_DATASET_CHATS,
    TRAINING_DATASET_SAMPLES,
    TRAINING_DATASETS,
    json_value,
)

_AGAIN = "materialize training_datasets for its window again"
_CHATS = tuple(TRAINING_DATASET_CHATS.columns)
# The texts go from one table to the other without leaving the server.
_TAKE_OVER = """
    INSERT INTO babylon_training.training_dataset_chats (dataset_id, trajectory_id, sha256, chat)
    SELECT %s, trajectory_id, chat_sha256, chat FROM babylon_training.raw_trajectories
    WHERE window_id = %s AND trajectory_id = ANY(%s) RETURNING trajectory_id, sha256"""
_sample_row = attrgetter(
    *("group" if name == "group_key" else name for name in TRAINING_DATASET_SAMPLES.columns if name != "dataset_id")
)


def save_dataset(conn: Connection[Any], dataset: Dataset | DatasetDraft) -> bool:
    """Keep a dataset; False when it was there already. The primary key on the content's hash is what makes it once.

    Runs in the caller's transaction, or in one of its own. The texts of a draft are taken from what is kept of its
    window; the window's lock, held since they were hashed, keeps another run from replacing them.

    Raises:
        CorruptLedger: the window no longer has the texts that a draft names.
    """
    draft = frozen.draft_of(dataset) if isinstance(dataset, Dataset) else dataset
    row = {
        "id": dataset.id,
        "window_id": draft.window,
        "samples": len(draft.samples),
        "trainable_tokens": sum(sample.tokens for sample in draft.samples if sample.trains_as != "skip"),
        "counts": json_value(draft.counts),
    }
    in_first_form = isinstance(dataset, Dataset) and dataset.id == frozen.first_id(dataset)
    with conn.transaction():
        there = conn.execute(TRAINING_DATASETS.select("WHERE id = %s", "id"), [dataset.id]).fetchone()
        if there is not None:
            return False
        row["body"] = pack_parts([canonical_json(dataset)] if in_first_form else draft.content)
        added = conn.execute(TRAINING_DATASETS.insert(row, "ON CONFLICT (id) DO NOTHING RETURNING id"), row)
        if added.fetchone() is None:
            return False
        if not in_first_form:
            _save_chats(conn, draft, dataset.id)
        rows = ((dataset.id, *_sample_row(sample)) for sample in draft.samples)
        TRAINING_DATASET_SAMPLES.copy(conn, tuple(TRAINING_DATASET_SAMPLES.columns), rows)
    return True


def _save_chats(conn: Connection[Any], draft: DatasetDraft, dataset_id: str) -> None:
    own = draft.own_chats
    TRAINING_DATASET_CHATS.copy(
        conn, _CHATS, ((dataset_id, name, draft.chats[name], pack(chat)) for name, chat in own.items())
    )
    kept = {name: digest for name, digest in draft.chats.items() if name not in own}
    if kept:
        taken = conn.execute(_TAKE_OVER, [dataset_id, draft.window, list(kept)]).fetchall()
        if dict(taken) != kept:
            raise CorruptLedger(f"{draft.window} was read again while its dataset was made; {_AGAIN}")


def load_dataset(conn: Connection[Any], dataset_id: str) -> Dataset:
    """The dataset with this id, exactly as it was saved.

    Raises:
        CorruptLedger: when it is not there, or its bytes are not what the id names.
    """
    wanted = TRAINING_DATASETS.select("WHERE id = %s", "body", "counts")
    chats = TRAINING_DATASET_CHATS.select("WHERE dataset_id = %s", "trajectory_id", "chat")
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(wanted, [dataset_id]).fetchone()
        if row is None:
            raise CorruptLedger(f"dataset {dataset_id} is not kept; {_AGAIN}")
        if not row[0]:
            raise CorruptLedger(f"dataset {dataset_id} was emptied, it held answers of a forgotten agent; {_AGAIN}")
        try:
            texts = {name: unpack(chat) for name, chat in cursor.execute(chats, [dataset_id])}
            dataset = frozen.restore(dataset_id, unpack(row[0]), row[1], texts)
        except ValueError as error:
            raise CorruptLedger(f"dataset {dataset_id} cannot be read ({error}); {_AGAIN}") from None
    if dataset.id != dataset_id:
        raise CorruptLedger(f"dataset {dataset_id} holds the content of {dataset.id}; {_AGAIN}")
    return dataset


def is_readable(conn: Connection[Any], dataset_id: str) -> bool:
    """Whether a dataset is kept with what it holds; one that held answers of a forgotten agent was emptied."""
    row = conn.execute(TRAINING_DATASETS.select("WHERE id = %s AND body <> ''", "id"), [dataset_id]).fetchone()
    return row is not None


def dataset_frame(conn: Connection[Any], dataset_id: str) -> pd.DataFrame:
    """One row per sample: ids, group_key, policy, reward, advantage, trains_as, skip_reason, tokens; no texts."""
    columns = list(TRAINING_DATASET_SAMPLES.columns)
    wanted = TRAINING_DATASET_SAMPLES.select("WHERE dataset_id = %s ORDER BY group_key, sample_id")
    frame = pd.DataFrame(conn.execute(wanted, [dataset_id]).fetchall(), columns=columns)
    return frame.astype({"reward": "float64", "advantage": "float64"})
