"""The tables `training_datasets` and `training_dataset_trajectories`: frozen datasets under the hash of their content.

The body is what is hashed, and names the texts, one chat a trajectory, by their hashes; what the rows of trajectories
say of the samples is an index of it, for lineage and for looking at. Texts that the window keeps are referred to, not
copied: the trigger `texts_stay` leaves them to the dataset when the window's rows go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from psycopg import Connection

from babylon_assets.domain import dataset_codec
from babylon_assets.domain.baselines import mean_of
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.grouping import baseline_in, kind_in, level_of
from babylon_assets.domain.samples import Dataset, DatasetDraft, SampleHead
from babylon_assets.ledger.arrays import fixed_arrays, runs, text_arrays
from babylon_assets.ledger.compression import pack, pack_parts, unpack
from babylon_assets.ledger.specification import (
    TRAINING_DATASET_SAMPLES,
    TRAINING_DATASET_TRAJECTORIES,
    TRAINING_DATASETS,
)
from babylon_assets.ledger.table import json_value

_AGAIN = "materialize training_datasets for its window again"
_CHAT_HASHES = """
    SELECT trajectory_id, chat_sha256 FROM babylon_training.raw_trajectories
    WHERE window_id = %s AND trajectory_id = ANY(%s)"""
_TEXTS = """
    SELECT kept.trajectory_id, coalesce(kept.chat, raw.chat) FROM babylon_training.training_dataset_trajectories AS kept
    JOIN babylon_training.training_datasets AS dataset ON dataset.id = kept.dataset_id
    LEFT JOIN babylon_training.raw_trajectories AS raw
        ON kept.chat IS NULL AND raw.window_id = dataset.window_id
        AND raw.trajectory_id = kept.trajectory_id AND raw.chat_sha256 = kept.chat_sha256
    WHERE kept.dataset_id = %s AND kept.chat_sha256 IS NOT NULL"""
#: Earlier windows that a running mean is of.
RUNNING_WINDOWS = 8
_EARLIER = """window_id IN (SELECT window_id FROM babylon_training.windows
    WHERE window_id < %s AND dataset_id IS NOT NULL ORDER BY window_id DESC LIMIT %s)"""
#: The arrays, each with the attribute of a sample that it holds.
_OF_SAMPLES = {name: column.holds for name, column in TRAINING_DATASET_TRAJECTORIES.columns.items() if column.holds}
_columns_of = attrgetter("trajectory_id", "agent_id", *_OF_SAMPLES.values())


def save_dataset(conn: Connection[Any], dataset: Dataset | DatasetDraft) -> bool:
    """Keep a dataset; False when it was there already. The primary key on the content's hash is what makes it once.

    Runs in the caller's transaction, or in one of its own. The texts of a draft are those that its window keeps; the
    window's lock, held since they were hashed, keeps another run from replacing them.

    Raises:
        CorruptLedger: the window no longer has the texts that a draft names.
    """
    draft = dataset_codec.draft_of(dataset) if isinstance(dataset, Dataset) else dataset
    row = {
        "id": dataset.id,
        "window_id": draft.window,
        "samples": len(draft.samples),
        "trainable_tokens": sum(sample.tokens for sample in draft.samples if sample.trains_as != "skip"),
        "counts": json_value(draft.counts),
    }
    in_first_form = isinstance(dataset, Dataset) and dataset.id == dataset_codec.first_id(dataset)
    with conn.transaction():
        there = conn.execute(TRAINING_DATASETS.select("WHERE id = %s", "id"), [dataset.id]).fetchone()
        if there is not None:
            return False
        content = [dataset_codec.encode_first(dataset)] if isinstance(dataset, Dataset) and in_first_form else None
        row["body"] = pack_parts(content or draft.content)
        added = conn.execute(TRAINING_DATASETS.insert(row, "ON CONFLICT (id) DO NOTHING RETURNING id"), row)
        if added.fetchone() is None:
            return False
        if not in_first_form:
            _check_texts(conn, draft)
        hashes: Mapping[str, str] = {} if in_first_form else draft.chats
        _save_trajectories(conn, draft, dataset.id, hashes)
    return True


def _check_texts(conn: Connection[Any], draft: DatasetDraft) -> None:
    """Whether the window still has the texts that a draft names and does not bring."""
    digests = {name: digest for name, digest in draft.chats.items() if name not in draft.own_chats}
    if digests and dict(conn.execute(_CHAT_HASHES, [draft.window, list(digests)]).fetchall()) != digests:
        raise CorruptLedger(f"{draft.window} was read again while its dataset was made; {_AGAIN}")


def _save_trajectories(conn: Connection[Any], draft: DatasetDraft, dataset_id: str, hashes: Mapping[str, str]) -> None:
    if not draft.samples:
        return
    trajectories, agents, *columns = zip(*map(_columns_of, draft.samples), strict=True)
    order, bounds = runs(trajectories)
    named = dict(zip(_OF_SAMPLES, columns, strict=True))
    arrays = zip(*(_arrays(name, column, order, bounds) for name, column in named.items()), strict=True)
    own = draft.own_chats if hashes else {}
    rows = (
        (dataset_id, name, agents[first], hashes.get(name), pack(own[name]) if name in own else None, *values)
        for first, values in zip(order[bounds[:-1]].tolist(), arrays, strict=True)
        for name in (trajectories[first],)
    )
    names = ("dataset_id", "trajectory_id", "agent_id", "chat_sha256", "chat", *_OF_SAMPLES)
    TRAINING_DATASET_TRAJECTORIES.copy(conn, names, rows, as_they_are=_OF_SAMPLES)


def _arrays(name: str, column: Sequence[Any], order: Any, bounds: Sequence[int]) -> Iterator[bytes]:
    """A column of samples as an array for each trajectory."""
    kind = TRAINING_DATASET_TRAJECTORIES.columns[name].type.removesuffix("[]")
    if kind == "text":
        return text_arrays([column[n] for n in order.tolist()], bounds)
    return fixed_arrays(np.array(column, dtype="float64" if kind == "float8" else "int64")[order], bounds, kind)


def load_dataset(conn: Connection[Any], dataset_id: str) -> Dataset:
    """The dataset with this id, exactly as it was saved.

    Raises:
        CorruptLedger: when it is not there, or its bytes are not what the id names.
    """
    content, counts = _body(conn, dataset_id)
    dataset = dataset_codec.restore(dataset_id, content, counts, dict(stream_chats(conn, dataset_id)))
    if dataset.id != dataset_id:
        raise CorruptLedger(f"dataset {dataset_id} holds the content of {dataset.id}; {_AGAIN}")
    return dataset


def load_heads(conn: Connection[Any], dataset_id: str) -> list[SampleHead]:
    """The samples of the dataset with this id, their texts unread.

    Raises:
        CorruptLedger: when it is not there, or its bytes are not what the id names.
    """
    return dataset_codec.restore_heads(dataset_id, _body(conn, dataset_id)[0])


def load_outline(conn: Connection[Any], dataset_id: str) -> dataset_codec.Outline:
    """What the dataset with this id consists of, in less room than its samples.

    Raises:
        CorruptLedger: when it is not there, or its bytes are not what the id names.
    """
    return dataset_codec.outline(dataset_id, _body(conn, dataset_id)[0])


def stream_chats(conn: Connection[Any], dataset_id: str, *trajectories: str) -> Iterator[tuple[str, bytes]]:
    """The chat of each of a dataset's trajectories, or of those that are named, holding one at a time.

    The connection can do nothing else until the iterator is exhausted or closed.

    Raises:
        CorruptLedger: when one is not there or cannot be unpacked.
    """
    of_these = " AND kept.trajectory_id = ANY(%s)" if trajectories else ""
    given = [dataset_id, list(trajectories)] if trajectories else [dataset_id]
    statement = f"COPY ({_TEXTS}{of_these}) TO STDOUT (FORMAT BINARY)"
    with conn.cursor() as cursor, cursor.copy(statement.encode(), given) as copy:
        copy.set_types(["text", "bytea"])
        for name, chat in copy.rows():
            yield name, _unpacked(dataset_id, chat or b"")


def _body(conn: Connection[Any], dataset_id: str) -> tuple[bytes, dict[str, int]]:
    """A dataset's content and its counts."""
    query = TRAINING_DATASETS.select("WHERE id = %s", "body", "counts")
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(query, [dataset_id]).fetchone()
    if row is None:
        raise CorruptLedger(f"dataset {dataset_id} is not kept; {_AGAIN}")
    if not row[0]:
        raise CorruptLedger(f"dataset {dataset_id} was emptied, it held answers of a forgotten agent; {_AGAIN}")
    return _unpacked(dataset_id, row[0]), row[1]


def _unpacked(dataset_id: str, blob: bytes) -> bytes:
    try:
        return unpack(blob)
    except ValueError as error:
        raise CorruptLedger(f"dataset {dataset_id} cannot be read ({error}); {_AGAIN}") from None


def trained_rewards(conn: Connection[Any], dataset_id: str) -> dict[str, float]:
    """The reward that each sample was trained with, by its id: what is known of a dataset that was emptied, too."""
    query = TRAINING_DATASET_SAMPLES.select(
        "WHERE dataset_id = %s AND trains_as <> 'skip' AND reward IS NOT NULL", "sample_id", "reward"
    )
    return dict(conn.execute(query, [dataset_id]).fetchall())


def is_readable(conn: Connection[Any], dataset_id: str) -> bool:
    """Whether a dataset is kept with what it holds; one that held answers of a forgotten agent was emptied."""
    row = conn.execute(TRAINING_DATASETS.select("WHERE id = %s AND body <> ''", "id"), [dataset_id]).fetchone()
    return row is not None


def running_mean(conn: Connection[Any], window: str, kind: str, imitated: bool) -> float | None:
    """The mean reward of the newest windows before this one, of actions of a kind; None where there is none.

    A window that has a dataset keeps the mean that it had: what changes in earlier windows does not change this one.

    Args:
        imitated: of other models' answers, else of our own policies'.
    """
    known = {
        baseline_in(group)
        for group, other, _, _ in _reward_sums(conn, "window_id = %s", [window])
        if level_of(group) == "running_mean" and (kind_in(group), other) == (kind, imitated)
    }
    if known:
        return min(mean for mean in known if mean is not None)
    earlier = _reward_sums(conn, _EARLIER, [window, RUNNING_WINDOWS])
    return mean_of((total, n) for group, other, total, n in earlier if (kind_in(group), other) == (kind, imitated))


def _reward_sums(conn: Connection[Any], windows: str, parameters: Sequence[Any]) -> list[tuple[str, bool, float, int]]:
    """Sum and count of the known rewards in some windows' newest datasets, by group, and whether others answered."""
    statement = f"""
        SELECT group_key, policy IS NULL, sum(reward), count(*) FROM babylon_training.training_dataset_samples
        WHERE dataset_id IN (SELECT dataset_id FROM babylon_training.windows WHERE {windows})
            AND reward IS NOT NULL AND reward <> 'NaN'
        GROUP BY 1, 2"""
    return conn.execute(statement.encode(), list(parameters)).fetchall()


def dataset_frame(conn: Connection[Any], dataset_id: str) -> pd.DataFrame:
    """One row per sample: the columns of `training_dataset_samples`; no texts."""
    columns = list(TRAINING_DATASET_SAMPLES.columns)
    query = TRAINING_DATASET_SAMPLES.select("WHERE dataset_id = %s ORDER BY group_key, sample_id")
    frame = pd.DataFrame(conn.execute(query, [dataset_id]).fetchall(), columns=columns)
    return frame.astype({"reward": "float64", "advantage": "float64"})
