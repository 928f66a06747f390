"""The table `model_checkpoints`: the chain of checkpoints, each with what it was made from.

Three unique indexes are what keep a chain a line: on (chain, parent), so that no checkpoint is extended twice, on
(chain, step) and on (chain, window). A branch is a chain of its own, `<chain>+<name>`, whose first checkpoint's parent
is another chain's; its steps go on from there. The weights themselves lie in folders that `training` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from psycopg import Connection, errors
from psycopg.rows import class_row

from babylon_assets.core.errors import ChainConflict, CorruptLedger
from babylon_assets.core.policies import BRANCH, main_chain
from babylon_assets.store.tables import MODEL_CHECKPOINTS, json_value

#: The first half of the advisory lock's key; the second is the chain's name.
_LINE_SPACE = 0x6261_706C


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint; step 0, the root, is the base model as it is and has no parent, window or dataset.

    Attributes:
        id: hash of the manifest of what it was made from.
        settings, versions, metrics: as they were when it was trained; numbers that are not finite come back as None.
        path: folder of the weights, or where the hosted service has them; empty for a root, and when they were pruned.
        weights_sha256: of the weights; for a root, what identifies the base model.
    """

    id: str
    chain: str
    step: int
    base_model: str
    weights_sha256: str
    seed: int
    created_at: datetime
    parent_id: str | None = None
    window_id: str | None = None
    dataset_id: str | None = None
    backend: str = "base"
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    dagster_run_id: str | None = None


def head(conn: Connection[Any], chain: str) -> Checkpoint | None:
    """The newest checkpoint of a chain, the one with the highest step; None before the chain begins."""
    return _one(conn, "WHERE chain = %s ORDER BY step DESC LIMIT 1", chain)


def get(conn: Connection[Any], checkpoint_id: str) -> Checkpoint | None:
    """The checkpoint with this id, or None."""
    return _one(conn, "WHERE id = %s", checkpoint_id)


def by_window(conn: Connection[Any], chain: str, window: str) -> Checkpoint | None:
    """The chain's checkpoint of a window, or None."""
    return _one(conn, "WHERE chain = %s AND window_id = %s", chain, window)


def chain(conn: Connection[Any], name: str) -> list[Checkpoint]:
    """All checkpoints of a chain, in the order of their steps."""
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(MODEL_CHECKPOINTS.select("WHERE chain = %s ORDER BY step"), [name]).fetchall()


def family(conn: Connection[Any], chain: str) -> list[Checkpoint]:
    """All checkpoints of a chain and of its branches, ordered by chain and step."""
    wanted = MODEL_CHECKPOINTS.select("WHERE split_part(chain, %s, 1) = %s ORDER BY chain, step")
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(wanted, [BRANCH, main_chain(chain)]).fetchall()


def newest_before(conn: Connection[Any], chain: str, window: str) -> Checkpoint | None:
    """The chain's newest checkpoint of an earlier window, or its root; None before the chain begins."""
    return _one(conn, "WHERE chain = %s AND coalesce(window_id, '') < %s ORDER BY step DESC LIMIT 1", chain, window)


def insert_checkpoint(conn: Connection[Any], checkpoint: Checkpoint) -> None:
    """Add a checkpoint, in the caller's transaction or in one of its own.

    Raises:
        ChainConflict: when the chain already has a checkpoint with this parent, step, window or id.
        CorruptLedger: when its parent or its dataset is not kept.
    """
    try:
        with conn.transaction():
            conn.execute(MODEL_CHECKPOINTS.insert(MODEL_CHECKPOINTS.columns), _values(checkpoint))
    except errors.UniqueViolation as error:
        raise ChainConflict(
            f"step {checkpoint.step} of {checkpoint.chain} for {checkpoint.window_id}: another checkpoint stands there "
            f"already ({error.diag.constraint_name}); nothing was added, run the window again to take it up"
        ) from None
    except errors.ForeignKeyViolation as error:
        raise CorruptLedger(
            f"step {checkpoint.step} of {checkpoint.chain}: {error.diag.message_detail or error}; "
            "materialize training_datasets for its window again, then train"
        ) from None


def lock_line(conn: Connection[Any], chain: str) -> None:
    """Wait for the right to change which checkpoints are a chain's line; it ends with the caller's transaction.

    Held for moments only, by promotions and by new checkpoints; the chain's other lock, `database.chain_lock`, is held
    for as long as a training takes.
    """
    conn.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LINE_SPACE, chain])


def ensure_root(conn: Connection[Any], root: Checkpoint) -> Checkpoint:
    """The root of the chain, which is `root` unless the chain has begun already."""
    statement = MODEL_CHECKPOINTS.insert(MODEL_CHECKPOINTS.columns, "ON CONFLICT DO NOTHING")
    with conn.transaction():
        conn.execute(statement, _values(root))
    kept = _one(conn, "WHERE chain = %s AND step = 0", root.chain)
    if kept is None:
        raise CorruptLedger(f"the chain {root.chain} has checkpoints but no root; restore it from a backup")
    return kept


def _values(checkpoint: Checkpoint) -> dict[str, Any]:
    values = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    return {name: json_value(v) if MODEL_CHECKPOINTS.columns[name] == "jsonb" else v for name, v in values.items()}


def _one(conn: Connection[Any], rest: str, *parameters: str) -> Checkpoint | None:
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(MODEL_CHECKPOINTS.select(rest), parameters).fetchone()
