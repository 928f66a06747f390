"""The table `windows`: one row per window, its state and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from psycopg import Connection, sql
from psycopg.rows import class_row

from babylon_assets.ledger.specification import WINDOWS
from babylon_assets.ledger.table import json_value

Status = Literal["open", "thin", "ready", "trained", "skipped", "failed"]


@WINDOWS.row
@dataclass(frozen=True, slots=True)
class WindowRow:
    """One window.

    Attributes:
        status: open (not looked at to the end), thin, ready (has a dataset to train on), trained, skipped (nothing in
            it could be trained on), failed.
        fingerprint: of the source as it was when the window was last read.
        trainable_tokens: completion tokens of the samples of its dataset that can be trained on.
        reward_mean, reward_std: over the samples with a known reward; None without any.
        reference: what known policies would have earned on the same boards, by name; None outside the simulated game.
        parent_id, checkpoint_id: the checkpoint trained from and the one that came of it.
        understood: the share of its actions, and of its trades, without an unknown word; the lesser of the two.
        unknown_words: the words that were not known, with their counts, for a person.
        understanding: the counts of `Understanding.counts`, and rows that were not read, as `left out: <why>`.
    """

    window_id: str
    status: Status
    fingerprint: str | None
    trajectories: int
    agents: int
    samples: int
    trainable_tokens: int
    reward_mean: float | None
    reward_std: float | None
    dataset_id: str | None
    checkpoint_id: str | None
    parent_id: str | None
    reference: dict[str, float] | None
    reason: str | None
    changed_at: datetime
    understood: float | None = None
    unknown_words: str | None = None
    understanding: dict[str, int] | None = None


class WindowColumns(TypedDict, total=False):
    """What `upsert_window` can set."""

    status: Status
    fingerprint: str | None
    trajectories: int
    agents: int
    samples: int
    trainable_tokens: int
    reward_mean: float | None
    reward_std: float | None
    dataset_id: str | None
    checkpoint_id: str | None
    parent_id: str | None
    reference: dict[str, float] | None
    reason: str | None
    understood: float | None
    unknown_words: str | None
    understanding: dict[str, int] | None


def upsert_window(conn: Connection[Any], window: str, **columns: Unpack[WindowColumns]) -> WindowRow:
    """Set the given columns of a window, making its row when there is none; other columns stay. Returns the row.

    Runs in the caller's transaction, or in one of its own. NaN is stored as "not known".
    """
    values: dict[str, Any] = {name: _stored(name, value) for name, value in columns.items()}
    changes = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values]
    statement = sql.SQL(" ").join(
        [
            WINDOWS.insert(["window_id", *values], "ON CONFLICT (window_id) DO UPDATE SET changed_at = now()"),
            *(sql.SQL(", {}").format(change) for change in changes),
            sql.SQL("RETURNING *"),
        ]
    )
    with conn.transaction(), conn.cursor(row_factory=class_row(WindowRow)) as cursor:
        row = cursor.execute(statement, {"window_id": window, **values}).fetchone()
    assert row is not None  # RETURNING of an upsert without WHERE
    return row


def _stored(name: str, value: Any) -> Any:
    if WINDOWS.columns[name].type == "jsonb":
        return json_value(value)
    return None if isinstance(value, float) and value != value else value


def note_thin(conn: Connection[Any], reasons: Mapping[str, str]) -> None:
    """Set the windows of these reasons to thin, making their rows where there are none, in one statement."""
    statement = """
        INSERT INTO babylon_training.windows (window_id, status, reason)
        SELECT window_id, 'thin', reason FROM unnest(%s::text[], %s::text[]) AS given (window_id, reason)
        ON CONFLICT (window_id) DO UPDATE SET status = excluded.status, reason = excluded.reason, changed_at = now()"""
    conn.execute(statement, [list(reasons), list(reasons.values())])


def get_window(conn: Connection[Any], window: str) -> WindowRow | None:
    """The row of a window, or None."""
    with conn.cursor(row_factory=class_row(WindowRow)) as cursor:
        return cursor.execute(WINDOWS.select("WHERE window_id = %s"), [window]).fetchone()


def list_windows(conn: Connection[Any]) -> list[WindowRow]:
    """All windows, oldest first."""
    with conn.cursor(row_factory=class_row(WindowRow)) as cursor:
        return cursor.execute(WINDOWS.select("ORDER BY window_id")).fetchall()


def states_since(conn: Connection[Any], since: str) -> dict[str, Status]:
    """The states of the windows from this one on."""
    rows = conn.execute(WINDOWS.select("WHERE window_id >= %s", "window_id", "status"), [since])
    return dict(rows.fetchall())


def count_changed(conn: Connection[Any], since: datetime, newest: int) -> int:
    """How many of so many newest windows have a row that was written after this moment."""
    query = """
        SELECT count(*)::int FROM (
            SELECT changed_at FROM babylon_training.windows ORDER BY window_id DESC LIMIT %s) AS newest
        WHERE changed_at > %s"""
    ((count,),) = conn.execute(query, [newest, since]).fetchall()
    return int(count)


def read_before(conn: Connection[Any], before: str | None, most: int) -> list[tuple[str, str]]:
    """The newest windows that were read, at most so many, older than `before` if it is given: window, fingerprint."""
    query = WINDOWS.select(
        "WHERE fingerprint IS NOT NULL AND status <> 'failed' AND (%(before)s::text IS NULL OR window_id < %(before)s)"
        " ORDER BY window_id DESC LIMIT %(most)s",
        "window_id",
        "fingerprint",
    )
    return [(row[0], row[1]) for row in conn.execute(query, {"before": before, "most": most})]


def failed(conn: Connection[Any]) -> list[WindowRow]:
    """The windows that failed and were not brought to another state since, oldest first."""
    with conn.cursor(row_factory=class_row(WindowRow)) as cursor:
        return cursor.execute(WINDOWS.select("WHERE status = 'failed' ORDER BY window_id")).fetchall()
