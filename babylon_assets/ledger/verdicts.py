"""The table `gate_verdicts`: what the gate said of each checkpoint that it judged, refusals included.

The primary key on the checkpoint is what makes a verdict final: a checkpoint is judged once, and a person who thinks
otherwise promotes it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.domain.checkpoint_states import PROMOTED, state_off_the_line
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.specification import GATE_VERDICTS
from babylon_assets.ledger.table import json_value


@GATE_VERDICTS.row
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVerdict:
    """A verdict as it was kept; `verdict` has every finding, and the rules that were applied."""

    checkpoint_id: str
    chain: str
    champion_id: str | None
    passed: bool
    why: str
    verdict: Mapping[str, Any]
    dagster_run_id: str | None = None
    judged_at: datetime | None = None


def verdict_on(conn: Connection[Any], checkpoint_id: str) -> StoredVerdict | None:
    """What the gate said of a checkpoint, or None while it was not judged."""
    with conn.cursor(row_factory=class_row(StoredVerdict)) as cursor:
        return cursor.execute(GATE_VERDICTS.select("WHERE checkpoint_id = %s"), [checkpoint_id]).fetchone()


def without_verdict(conn: Connection[Any], chain: str) -> Checkpoint | None:
    """The head of a chain when nothing was said of it: a run was killed between training and the gate."""
    head, served = checkpoints.head(conn, chain), promotions.promoted(conn, chain)
    if head is None or head.step == 0 or (served is not None and served.id == head.id):
        return None
    return head if verdict_on(conn, head.id) is None else None


def champion_of(conn: Connection[Any], checkpoint: Checkpoint) -> Checkpoint | None:
    """The policy that was served when a checkpoint was judged; the one that is served now, until it was."""
    verdict = verdict_on(conn, checkpoint.id)
    first = next((row for row in promotions.history(conn, checkpoint.chain) if row.to_id == checkpoint.id), None)
    if verdict is None and first is None:
        return promotions.promoted(conn, checkpoint.chain)
    champion = verdict.champion_id if verdict is not None else (first.from_id if first is not None else None)
    return checkpoints.get(conn, champion or checkpoint.parent_id or "")


def served_after(conn: Connection[Any], chain: str, window: str) -> Checkpoint | None:
    """The policy that was served once a window was done; the one that is served now, until a later one was trained."""
    if not any((later.window_id or "") > window for later in checkpoints.chain(conn, chain)):
        return promotions.promoted(conn, chain)
    own = checkpoints.by_window(conn, chain, window)
    if own is None:
        return checkpoints.newest_before(conn, chain, window)
    return own if promotions.was_promoted(conn, own.id) else champion_of(conn, own)


def newest(conn: Connection[Any], chain: str) -> StoredVerdict | None:
    """The last verdict of a chain; None before the first."""
    query = GATE_VERDICTS.select("WHERE chain = %s ORDER BY judged_at DESC LIMIT 1")
    with conn.cursor(row_factory=class_row(StoredVerdict)) as cursor:
        return cursor.execute(query, [chain]).fetchone()


def of_chain(conn: Connection[Any], chain: str) -> list[StoredVerdict]:
    """Every verdict of a chain, oldest first."""
    with conn.cursor(row_factory=class_row(StoredVerdict)) as cursor:
        return cursor.execute(GATE_VERDICTS.select("WHERE chain = %s ORDER BY judged_at"), [chain]).fetchall()


def standings(conn: Connection[Any], chain: str) -> dict[str, str]:
    """What was decided of each window's checkpoint: promoted, rejected or rolled back; the others are left out."""
    rows = conn.execute(
        """
        SELECT window_id, rejected, id IN (SELECT to_id FROM babylon_training.promotions)
        FROM babylon_training.model_checkpoints WHERE chain = %s AND window_id IS NOT NULL
        """,
        [chain],
    ).fetchall()
    return {
        window: PROMOTED if reason is None else state_off_the_line(reason)
        for window, reason, was_served in rows
        if reason is not None or was_served
    }


def store_verdict(conn: Connection[Any], verdict: StoredVerdict) -> bool:
    """Keep a verdict, in the caller's transaction or in one of its own; False when there was one already."""
    values = {
        "checkpoint_id": verdict.checkpoint_id,
        "chain": verdict.chain,
        "champion_id": verdict.champion_id,
        "passed": verdict.passed,
        "why": verdict.why,
        "verdict": json_value(verdict.verdict),
        "dagster_run_id": verdict.dagster_run_id,
    }
    with conn.transaction():
        return conn.execute(GATE_VERDICTS.insert(values, "ON CONFLICT DO NOTHING"), values).rowcount == 1
