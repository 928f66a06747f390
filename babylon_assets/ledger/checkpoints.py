"""The table `model_checkpoints`: the chain of checkpoints, each with what it was made from.

Three unique indexes are what keep a chain a line: on (chain, parent) of what is not rejected, so that no checkpoint is
extended twice, on (chain, step) and on (chain, window). A rejected one, refused or rolled back, keeps its step
and its name, and is never a parent. A branch is a chain of its own, `<chain>+<name>`, whose first checkpoint's parent
is another chain's; its steps go on from there. The weights themselves lie in folders that `training` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, errors
from psycopg.rows import class_row

from babylon_assets.domain.errors import ChainConflict, CorruptLedger
from babylon_assets.domain.policies import BRANCH, main_chain, policy_name
from babylon_assets.ledger.specification import MODEL_CHECKPOINTS
from babylon_assets.ledger.table import json_value
from babylon_assets.ledger.waiting import wait_for_transaction_lock

#: The first half of the advisory lock's key; the second is the chain's name.
_LINE_SPACE = 0x6261_706C
_LINE: LiteralString = """
WITH RECURSIVE line AS (
    SELECT id, parent_id FROM babylon_training.model_checkpoints WHERE id = %(id)s
    UNION ALL SELECT made.id, made.parent_id FROM babylon_training.model_checkpoints AS made
    JOIN line ON made.id = line.parent_id)
UPDATE babylon_training.model_checkpoints"""
_OFF_THE_LINE: LiteralString = f"""{_LINE}
SET rejected = %(why)s WHERE chain = %(chain)s AND rejected IS NULL AND id NOT IN (SELECT id FROM line)"""
_ON_THE_LINE: LiteralString = f"""{_LINE}
SET rejected = NULL WHERE chain = %(chain)s AND rejected IS NOT NULL AND id IN (SELECT id FROM line)"""


@MODEL_CHECKPOINTS.row
@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint; step 0, the root, is the base model as it is and has no parent, window or dataset.

    Attributes:
        id: hash of the manifest of what it was made from.
        settings, versions, metrics: as they were when it was trained; numbers that are not finite come back as None.
        path: folder of the weights, or where the hosted service has them; empty for a root, and when they were pruned.
        weights_sha256: of the weights; for a root, what identifies the base model.
        rejected: why the chain does not go on from it; None on the line that leads to the head.
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
    rejected: str | None = None


def head(conn: Connection[Any], chain: str) -> Checkpoint | None:
    """The checkpoint that a chain goes on from, its newest that is not rejected; None before the chain begins."""
    return _select_one(conn, "WHERE chain = %s AND rejected IS NULL ORDER BY step DESC LIMIT 1", chain)


def next_step(conn: Connection[Any], chain: str, parent: Checkpoint) -> int:
    """The step that the next checkpoint gets: one after the parent's, and after every rejected one of the chain."""
    row = conn.execute(
        "SELECT coalesce(max(step), 0) FROM babylon_training.model_checkpoints WHERE chain = %s", [chain]
    ).fetchone()
    assert row is not None  # an aggregate
    return 1 + max(int(row[0]), parent.step)


def get(conn: Connection[Any], checkpoint_id: str) -> Checkpoint | None:
    """The checkpoint with this id, or None."""
    return _select_one(conn, "WHERE id = %s", checkpoint_id)


def by_window(conn: Connection[Any], chain: str, window: str) -> Checkpoint | None:
    """The chain's checkpoint of a window, or None."""
    return _select_one(conn, "WHERE chain = %s AND window_id = %s", chain, window)


def chain(conn: Connection[Any], name: str) -> list[Checkpoint]:
    """All checkpoints of a chain, in the order of their steps."""
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(MODEL_CHECKPOINTS.select("WHERE chain = %s ORDER BY step"), [name]).fetchall()


def family(conn: Connection[Any], chain: str) -> list[Checkpoint]:
    """All checkpoints of a chain and of its branches, ordered by chain and step."""
    query = MODEL_CHECKPOINTS.select("WHERE split_part(chain, %s, 1) = %s ORDER BY chain, step")
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(query, [BRANCH, main_chain(chain)]).fetchall()


def newest_before(conn: Connection[Any], chain: str, window: str) -> Checkpoint | None:
    """The chain's newest checkpoint of an earlier window, or its root; None before the chain begins."""
    rest = "WHERE chain = %s AND coalesce(window_id, '') < %s AND rejected IS NULL ORDER BY step DESC LIMIT 1"
    return _select_one(conn, rest, chain, window)


def insert_checkpoint(conn: Connection[Any], checkpoint: Checkpoint) -> None:
    """Add a checkpoint, in the caller's transaction or in one of its own.

    One whose parent was rejected while it was trained is rejected itself.

    Raises:
        ChainConflict: when the chain already has a checkpoint with this parent, step, window or id.
        CorruptLedger: when its parent or its dataset is not kept.
    """
    try:
        with conn.transaction():
            lock_line(conn, checkpoint.chain)
            values = {**_values(checkpoint), "rejected": checkpoint.rejected or _inherited(conn, checkpoint)}
            conn.execute(MODEL_CHECKPOINTS.insert(MODEL_CHECKPOINTS.columns), values)
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


def _inherited(conn: Connection[Any], checkpoint: Checkpoint) -> str | None:
    parent = get(conn, checkpoint.parent_id) if checkpoint.parent_id else None
    if parent is None or parent.rejected is None or parent.chain != checkpoint.chain:
        return None
    return f"its parent, {policy_name(parent.chain, parent.step)}, was rejected while it was trained"


def lock_line(conn: Connection[Any], chain: str) -> None:
    """Wait for the right to change which checkpoints are a chain's line; it ends with the caller's transaction.

    Held for moments only, by promotions and by new checkpoints; the chain's other lock, `database.chain_lock`, is held
    for as long as a training takes.
    """
    wait_for_transaction_lock(conn, (_LINE_SPACE, chain), f"the right to change the line of {chain}")


def ensure_root(conn: Connection[Any], root: Checkpoint) -> Checkpoint:
    """The root of the chain, which is `root` unless the chain has begun already."""
    statement = MODEL_CHECKPOINTS.insert(MODEL_CHECKPOINTS.columns, "ON CONFLICT DO NOTHING")
    with conn.transaction():
        conn.execute(statement, _values(root))
    kept = _select_one(conn, "WHERE chain = %s AND step = 0", root.chain)
    if kept is None:
        raise CorruptLedger(f"the chain {root.chain} has checkpoints but no root; restore it from a backup")
    return kept


def reject(conn: Connection[Any], checkpoint_id: str, why: str) -> None:
    """Never go on from this checkpoint; it stays, with its step, its name and the reason."""
    with conn.transaction():
        conn.execute(
            "UPDATE babylon_training.model_checkpoints SET rejected = %s WHERE id = %s AND step > 0",
            [why, checkpoint_id],
        )


def set_line(conn: Connection[Any], checkpoint: Checkpoint, why: str) -> None:
    """Make a checkpoint the head of its chain: it and its ancestors are the line, every other one is rejected.

    In the caller's transaction, which holds `lock_line`. Rejections come first, so that the unique index on parents
    holds after every row.
    """
    known = {"chain": checkpoint.chain, "id": checkpoint.id, "why": why}
    conn.execute(_OFF_THE_LINE, known)
    conn.execute(_ON_THE_LINE, known)


def _values(checkpoint: Checkpoint) -> dict[str, Any]:
    values = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
    return {name: json_value(v) if MODEL_CHECKPOINTS.columns[name].type == "jsonb" else v for name, v in values.items()}


def _select_one(conn: Connection[Any], rest: str, *parameters: str) -> Checkpoint | None:
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(MODEL_CHECKPOINTS.select(rest), parameters).fetchone()
