"""The tables `raw_trajectories` and `quarantined_trajectories`: what was read of a window, replaced as a whole.

The primary keys and an advisory lock of the window, held to the end of the transaction, are what keep two runs from
doubling a window; readers see the old rows or the new ones, never some of both. Scores are in `scores.py`; the game's
own tables are read elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import msgspec
import pandas as pd
from psycopg import Connection, sql

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.dataset_codec import Places
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.frames import FactRow, facts_frame
from babylon_assets.domain.imported_rewards import ImportedRewards
from babylon_assets.domain.trajectories import (
    Quarantined,
    StepFacts,
    StoredSamples,
    TrajectoryRecord,
    store_samples,
)
from babylon_assets.ledger.arrays import text_array
from babylon_assets.ledger.compression import pack, unpack
from babylon_assets.ledger.database import window_lock
from babylon_assets.ledger.scores import read_scores, replace_scores
from babylon_assets.ledger.specification import QUARANTINED_TRAJECTORIES, RAW_TRAJECTORIES
from babylon_assets.ledger.table import json_value
from babylon_assets.ledger.trajectory_bodies import Body, decode_body, decode_facts, decode_heads, encode_body

__all__ = [
    "chat_hashes",
    "fingerprint_with_imports",
    "import_rows",
    "imported_hash",
    "quarantined",
    "raw_frame",
    "read_heads",
    "read_imported_rewards",
    "read_scores",
    "read_steps",
    "read_window",
    "recorded_texts",
    "references",
    "replace_rows",
    "replace_scores",
    "replace_window",
    "summary",
]

_T = TypeVar("_T")
_TEXTS = ("chat", "chat_sha256")
_JSON = ("attributes", "dropped")
_INSPECTED = tuple(name for name in RAW_TRAJECTORIES.columns if name not in ("body", "instruments", "given", *_TEXTS))
# Columns that are fields of TrajectoryRecord under the same name; `window_id` is its `window`.
_PLAIN = tuple(name for name in _INSPECTED if name not in ("window_id", "steps", "samples", *_JSON))
_WRITTEN = ("window_id", *_PLAIN, "steps", "samples", "body", "instruments", *_TEXTS, *_JSON)
_ARRAYS = ("instruments",)
_OF_WINDOW = "WHERE window_id = %s"
_QUARANTINED = ("window_id", "trajectory_id", "reason", "place", "row_hash")


class RawSummary(NamedTuple):
    """How much is kept of a window; `calls` are the answers that the game itself keeps."""

    trajectories: int
    agents: int
    steps: int
    calls: int
    quarantined: int


def replace_window(
    conn: Connection[Any],
    window: str,
    records: Iterable[TrajectoryRecord],
    quarantined: Iterable[Quarantined],
) -> None:
    """Put these records and quarantined rows in the place of all that was kept of the window; see `replace_rows`."""
    replace_rows(conn, window, chain(records, quarantined))


def replace_rows(conn: Connection[Any], window: str, rows: Iterable[TrajectoryRecord | Quarantined]) -> None:
    """Put these rows in the place of all that was kept of the window, in one transaction, holding one record at a time.

    What was imported into the window stays, and a row of a trajectory that was imported is left out. Inside a
    transaction of the caller's it becomes a part of that, and the window's lock lasts until that one ends. The rows may
    not come from the same connection.
    """
    refused: list[Quarantined] = []
    with conn.transaction():
        window_lock(conn, window)
        conn.execute(RAW_TRAJECTORIES.delete("WHERE window_id = %s AND given IS NULL"), [window])
        conn.execute(QUARANTINED_TRAJECTORIES.delete("WHERE window_id = %s AND NOT imported"), [window])
        left = {name for (name,) in conn.execute(RAW_TRAJECTORIES.select(_OF_WINDOW, "trajectory_id"), [window])}
        records = (record for record in _records(rows, refused) if record.trajectory_id not in left)
        RAW_TRAJECTORIES.copy(conn, _WRITTEN, (_row(window, record) for record in records), _ARRAYS)
        QUARANTINED_TRAJECTORIES.copy(conn, _QUARANTINED, _quarantine_rows(window, refused))


class ImportedRows(NamedTuple):
    """What an import did: ids of the trajectories that are new or changed, how many others, calls that nobody names."""

    written: set[str]
    unchanged: int
    from_the_game: int
    refused: int
    old_calls: list[str]


def import_rows(
    conn: Connection[Any],
    window: str,
    rows: Iterable[tuple[TrajectoryRecord, ImportedRewards]],
    refused: Iterable[Quarantined],
) -> ImportedRows:
    """Add imported trajectories, and rows that could not be read, to a window, in one transaction.

    A trajectory that was imported before and is another now is replaced; one that is the same, or that was read from
    the game, is left as it is.
    """
    with conn.transaction():
        window_lock(conn, window)
        listed = RAW_TRAJECTORIES.select(_OF_WINDOW, "trajectory_id", "content_hash", "given")
        there = {name: (seen, given) for name, seen, given in conn.execute(listed, [window])}
        fresh, counts, old_calls = [], Counter[str](), list[str]()
        for record, given in rows:
            seen, before = there.get(record.trajectory_id, (None, {}))
            kind = "game" if before is None else "same" if seen == record.content_hash else "fresh"
            counts[kind] += 1
            if kind == "fresh":
                old_calls += before.get("call_ids", [])
                fresh.append((*_row(window, record), json_value(given)))
        replaced = [row[1] for row in fresh]
        conn.execute(RAW_TRAJECTORIES.delete("WHERE window_id = %s AND trajectory_id = ANY(%s)"), [window, replaced])
        RAW_TRAJECTORIES.copy(conn, (*_WRITTEN, "given"), fresh, _ARRAYS)
        bad = sum(_refuse(conn, row) for row in _quarantine_rows(window, refused))
    return ImportedRows(set(replaced), counts["same"], counts["game"], bad, old_calls)


def _refuse(conn: Connection[Any], row: tuple[Any, ...]) -> int:
    """Put one imported row into quarantine; 0 when it is there already."""
    values = {**dict(zip(_QUARANTINED, row, strict=True)), "imported": True}
    return conn.execute(QUARANTINED_TRAJECTORIES.insert(values, "ON CONFLICT DO NOTHING"), values).rowcount


def imported_hash(conn: Connection[Any], window: str) -> str | None:
    """The hash of all that was imported into a window; None where nothing was."""
    query = """
        SELECT string_agg(line, ',' ORDER BY line COLLATE "C") FROM (
            SELECT trajectory_id || '|' || content_hash AS line FROM babylon_training.raw_trajectories
            WHERE window_id = %(window)s AND given IS NOT NULL
            UNION ALL
            SELECT trajectory_id || '|' || row_hash FROM babylon_training.quarantined_trajectories
            WHERE window_id = %(window)s AND imported) AS lines"""
    row = conn.execute(query, {"window": window}).fetchone()
    return None if row is None or row[0] is None else content_id(row[0])


def fingerprint_with_imports(source: str | None, imported: str | None) -> str:
    """The fingerprint of a window of which some, or all, was imported; the source's own where nothing was."""
    if imported is None:
        return source or ""
    return f"imported-{imported if source is None else content_id([source, imported])}"


def _records(rows: Iterable[TrajectoryRecord | Quarantined], refused: list[Quarantined]) -> Iterator[TrajectoryRecord]:
    """The records among the rows; the others are put into `refused`."""
    for row in rows:
        if isinstance(row, Quarantined):
            refused.append(row)
        else:
            yield row


_plain_of = attrgetter(*_PLAIN)


def _row(window: str, record: TrajectoryRecord) -> tuple[Any, ...]:
    samples, chat, digest = store_samples(record.samples), b"", ""
    if samples.heads:
        text = samples.chat()
        chat, digest = pack(text), sha256(text).hexdigest()
    body = encode_body(Body(record.facts, samples.heads))
    counts = len(record.facts), len(samples.heads)
    extra = (json_value(record.attributes), json_value(record.dropped))
    return (window, *_plain_of(record), *counts, body, text_array(record.references), chat, digest, *extra)


def _quarantine_rows(window: str, rows: Iterable[Quarantined]) -> Iterator[tuple[Any, ...]]:
    """One row per trajectory and reason, the table's key: the first place stands for the others."""
    seen = set()
    for row in rows:
        if (row.trajectory_id, row.reason) not in seen:
            seen.add((row.trajectory_id, row.reason))
            yield (window, row.trajectory_id, row.reason, row.place, row.row_hash)


def read_window(conn: Connection[Any], window: str) -> list[TrajectoryRecord]:
    """The records kept of a window, ordered by trajectory id; none for a window that was never read.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    return [
        msgspec.structs.replace(record, samples=list(record.samples)) for record in _records_of(conn, window, "chat")
    ]


def read_heads(conn: Connection[Any], window: str) -> list[TrajectoryRecord]:
    """As `read_window`, with samples whose texts are fetched from the database, on `conn`, when someone looks at them.

    Raises:
        CorruptLedger: when a row cannot be decoded; a text that cannot be, when it is looked at.
    """
    return list(_records_of(conn, window))


class RecordedTexts(NamedTuple):
    """The texts of a trajectory as they were read: their sha256, and step and call of each, in their order."""

    chat_sha256: str
    places: Places


def recorded_texts(conn: Connection[Any], window: str) -> dict[str, RecordedTexts]:
    """The texts of each trajectory of a window that has any, by trajectory id.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    columns = ("trajectory_id", "chat_sha256", "body")
    texts: dict[str, RecordedTexts] = {}
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND samples > 0", *columns)
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)
    with conn.cursor() as cursor, cursor.copy(statement, [window]) as copy:
        copy.set_types([RAW_TRAJECTORIES.columns[name].type for name in columns])
        for trajectory, digest, body in copy.rows():
            heads = _decoded(decode_heads, body, window, trajectory).samples
            texts[trajectory] = RecordedTexts(digest, [(head.step, head.call) for head in heads])
    return texts


def chat_hashes(conn: Connection[Any], window: str) -> dict[str, str]:
    """The sha256 of the texts of each trajectory of a window that has any, by trajectory id."""
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND samples > 0", "trajectory_id", "chat_sha256")
    return dict(conn.execute(query, [window]).fetchall())


def stream_chats(conn: Connection[Any], window: str) -> Iterator[tuple[str, bytes]]:
    """The texts of each trajectory of a window that has any, one at a time.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    columns = ("trajectory_id", "chat")
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND samples > 0", *columns)
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)
    with conn.cursor() as cursor, cursor.copy(statement, [window]) as copy:
        copy.set_types([RAW_TRAJECTORIES.columns[name].type for name in columns])
        for trajectory, chat in copy.rows():
            yield trajectory, _unpacked(chat, window, trajectory)


def read_steps(conn: Connection[Any], window: str, detail: Mapping[str, str]) -> pd.DataFrame:
    """The steps kept of a window as `frames.steps_frame` makes it of `read_window`; texts are not read.

    Args:
        detail: the environment's own columns by pandas dtype.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    columns = ("trajectory_id", "agent_id", "body")
    query = RAW_TRAJECTORIES.select('WHERE window_id = %s ORDER BY trajectory_id COLLATE "C"', *columns)
    owners: list[tuple[str, str, str, int]] = []
    facts: list[FactRow] = []
    with conn.cursor(binary=True) as cursor:
        for trajectory, agent, body in cursor.execute(query, [window]):
            decoded = _decoded(decode_facts, body, window, trajectory)
            owners.append((window, trajectory, agent, len(decoded)))
            facts += decoded
    return facts_frame(owners, facts, detail)


def read_facts(conn: Connection[Any], window: str, names: Sequence[str]) -> dict[tuple[str, int], StepFacts]:
    """The facts of the steps of some trajectories of a window, by trajectory id and step.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND trajectory_id = ANY(%s)", "trajectory_id", "body")
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(query, [window, list(names)]).fetchall()
    bodies = {name: _decoded(decode_body, body, window, name) for name, body in rows}
    return {(name, fact.step): fact for name, body in bodies.items() for fact in body.facts}


def _records_of(conn: Connection[Any], window: str, *texts: str) -> Iterator[TrajectoryRecord]:
    columns = (*_PLAIN, *_JSON, "instruments", "body", *texts)
    query = RAW_TRAJECTORIES.select('WHERE window_id = %s ORDER BY trajectory_id COLLATE "C"', *columns)
    with conn.cursor(binary=True) as cursor:
        for row in cursor.execute(query, [window]):
            fields = dict(zip((*_PLAIN, *_JSON), row, strict=False))
            trajectory = fields["trajectory_id"]
            references, packed = row[len(fields) : len(fields) + 2]
            body = _decoded(decode_body, packed, window, trajectory)
            given = texts and partial(_unpacked, row[-1], window, trajectory)
            chat = given or partial(_fetched, conn, window, trajectory)
            samples = StoredSamples(body.samples, chat)
            yield TrajectoryRecord(window=window, samples=samples, facts=body.facts, references=references, **fields)


def _fetched(conn: Connection[Any], window: str, trajectory_id: str) -> bytes:
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND trajectory_id = %s", "chat")
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(query, [window, trajectory_id]).fetchone()
    return _unpacked(row[0] if row else b"", window, trajectory_id)


def _unpacked(chat: bytes, window: str, trajectory_id: str) -> bytes:
    return _decoded(unpack, chat, window, trajectory_id)


def _decoded(decode: Callable[[bytes], _T], blob: bytes, window: str, trajectory_id: str) -> _T:
    try:
        return decode(blob)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptLedger(
            f"trajectory {trajectory_id} of {window} cannot be decoded ({error}); "
            "materialize raw_trajectories for this window again"
        ) from None


def quarantined(conn: Connection[Any], window: str) -> list[Quarantined]:
    """The rows of a window that could not be read, ordered by trajectory id and reason."""
    query = QUARANTINED_TRAJECTORIES.select("WHERE window_id = %s ORDER BY 2, 3", *_QUARANTINED)
    return [Quarantined(*row) for row in conn.execute(query, [window])]


def summary(conn: Connection[Any], window: str) -> RawSummary:
    """What is kept of a window, counted."""
    query = """
        SELECT count(*), count(DISTINCT agent_id), coalesce(sum(steps), 0), coalesce(sum(samples), 0),
               (SELECT count(*) FROM babylon_training.quarantined_trajectories WHERE window_id = %(window)s)
        FROM babylon_training.raw_trajectories WHERE window_id = %(window)s"""
    row = conn.execute(query, {"window": window}).fetchone()
    assert row is not None  # an aggregate without GROUP BY
    return RawSummary(*row)


def read_imported_rewards(conn: Connection[Any], window: str) -> dict[str, ImportedRewards]:
    """What came with the window's imported trajectories, by trajectory id; none where nothing was imported.

    Raises:
        CorruptLedger: when a row cannot be decoded.
    """
    query = RAW_TRAJECTORIES.select("WHERE window_id = %s AND given IS NOT NULL", "trajectory_id", "given")
    rows = conn.execute(query, [window]).fetchall()
    try:
        return {name: msgspec.convert(given, ImportedRewards) for name, given in rows}
    except msgspec.ValidationError as error:
        raise CorruptLedger(f"what was imported into {window} cannot be decoded ({error}); import it again") from None


def references(conn: Connection[Any], window: str) -> list[str]:
    """What the trajectories that were read of a window refer to in their environment, each once, sorted."""
    query = """
        SELECT DISTINCT unnest(instruments) FROM babylon_training.raw_trajectories WHERE window_id = %s"""
    return sorted(name for (name,) in conn.execute(query, [window]))


def raw_frame(conn: Connection[Any], window: str) -> pd.DataFrame:
    """One row per trajectory with every column but the body; times aware UTC, steps and samples as counts."""
    query = RAW_TRAJECTORIES.select('WHERE window_id = %s ORDER BY trajectory_id COLLATE "C"', *_INSPECTED)
    return pd.DataFrame(conn.execute(query, [window]).fetchall(), columns=list(_INSPECTED))
