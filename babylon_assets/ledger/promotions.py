"""The table `promotions`: which checkpoint of a chain is the one that is served, since when, and why.

Rows are only appended: a trigger refuses every change of one. A rollback is a row like a promotion, and the newest row
of a chain says what is served. Which checkpoint deserves it is decided in `domain.gates` or by a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.specification import PROMOTIONS
from babylon_assets.ledger.table import json_value

Kind = Literal["promotion", "rollback"]

_APPEND: LiteralString = """
INSERT INTO babylon_training.promotions
    (chain, kind, from_id, to_id, promoted_by, why, verdict, dagster_run_id, promoted_at)
VALUES (%(chain)s, %(kind)s,
        (SELECT to_id FROM babylon_training.promotions WHERE chain = %(chain)s ORDER BY id DESC LIMIT 1),
        %(to_id)s, %(promoted_by)s, %(why)s, %(verdict)s, %(dagster_run_id)s, clock_timestamp())
RETURNING *"""


@PROMOTIONS.row
@dataclass(frozen=True, slots=True)
class Promotion:
    """One promotion or rollback.

    Attributes:
        from_id: the checkpoint that was served before; None at a chain's first promotion.
        to_id: the checkpoint that is served from `promoted_at` on.
        promoted_by: `gate`, `auto-rollback`, or the person who typed the command.
        verdict: the gate's verdict with its rules; None for a person's own decision.
    """

    id: int
    chain: str
    kind: Kind
    from_id: str | None
    to_id: str
    promoted_by: str
    why: str
    verdict: dict[str, Any] | None
    dagster_run_id: str | None
    promoted_at: datetime


def promoted(conn: Connection[Any], chain: str) -> Checkpoint | None:
    """The checkpoint of a chain that is served; None before the first promotion."""
    return _served(conn, "WHERE chain = %s ORDER BY id DESC LIMIT 1", chain)


def was_promoted(conn: Connection[Any], checkpoint_id: str) -> bool:
    """Whether a checkpoint was promoted at any time."""
    row = conn.execute(PROMOTIONS.select("WHERE to_id = %s LIMIT 1", "id"), [checkpoint_id]).fetchone()
    return row is not None


def served_at(conn: Connection[Any], chain: str, moment: datetime) -> Checkpoint | None:
    """The checkpoint of a chain that was served at a moment; None before the first promotion."""
    return _served(conn, "WHERE chain = %s AND promoted_at <= %s ORDER BY id DESC LIMIT 1", chain, moment)


def history(conn: Connection[Any], chain: str) -> list[Promotion]:
    """Every promotion and rollback of a chain, oldest first."""
    return _all(conn, "WHERE chain = %s ORDER BY id", chain)


def of_checkpoint(conn: Connection[Any], checkpoint_id: str) -> list[Promotion]:
    """Every promotion of a checkpoint and rollback to it, oldest first."""
    return _all(conn, "WHERE to_id = %s ORDER BY id", checkpoint_id)


def promote(
    conn: Connection[Any],
    checkpoint: Checkpoint,
    *,
    by: str,
    why: str,
    kind: Kind = "promotion",
    verdict: Mapping[str, Any] | None = None,
    dagster_run_id: str | None = None,
) -> Promotion:
    """Make a checkpoint the served one of its chain, in the caller's transaction or in one of its own.

    The chain goes on from it: whatever was trained after it, or beside it, is rejected with this row's reason.
    The chain's rows are locked against other promotions, so that `from_id` is what was really served, and the ids and
    times of a chain's rows have one order.
    """
    values = {
        "chain": checkpoint.chain,
        "kind": kind,
        "to_id": checkpoint.id,
        "promoted_by": by,
        "why": why,
        "verdict": json_value(verdict),
        "dagster_run_id": dagster_run_id,
    }
    with conn.transaction(), conn.cursor(row_factory=class_row(Promotion)) as cursor:
        checkpoints.lock_line(conn, checkpoint.chain)
        row = cursor.execute(_APPEND, values).fetchone()
        name = policy_name(checkpoint.chain, checkpoint.step)
        sentence = f"rolled back to {name}" if kind == "rollback" else f"{name} was promoted in its place"
        checkpoints.set_line(conn, checkpoint, f"{sentence}: {why}")
    assert row is not None  # RETURNING of an INSERT
    return row


def _served(conn: Connection[Any], rest: LiteralString, *parameters: Any) -> Checkpoint | None:
    newest = _all(conn, rest, *parameters)
    if not newest:
        return None
    checkpoint = checkpoints.get(conn, newest[0].to_id)
    if checkpoint is None:
        raise CorruptLedger(f"promotion {newest[0].id} names a checkpoint that is not kept; restore it from a backup")
    return checkpoint


def _all(conn: Connection[Any], rest: LiteralString, *parameters: Any) -> list[Promotion]:
    with conn.cursor(row_factory=class_row(Promotion)) as cursor:
        return cursor.execute(PROMOTIONS.select(rest), parameters).fetchall()
