"""The declared columns, the records and the migrated database say the same; the database refuses what must not be."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any, get_args, get_type_hints

import psycopg
import pytest
from psycopg import errors

from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.ledger import (
    checkpoints,
    evaluations,
    feedback,
    inference_calls,
    promotions,
    specification,
    training_jobs,
    verdicts,
    windows,
)
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.table import IDENTITY, Table, json_value
from tests.ledger.values import CHAIN, LATER, WINDOW, checkpoint, dataset, root, sample

Conn = psycopg.Connection[Any]


def test_the_migrated_database_is_what_the_specification_says(conn: Conn) -> None:
    rows = conn.execute(
        "SELECT table_name, column_name, udt_name, is_nullable = 'YES', column_default, is_identity = 'YES' "
        "FROM information_schema.columns "
        "WHERE table_schema = 'babylon_training' AND table_name <> 'alembic_version' "
        "ORDER BY table_name, ordinal_position"
    ).fetchall()
    views = {table.name for table in specification.TABLES if table.view}
    there: dict[str, list[tuple[Any, ...]]] = {}
    for table, column, kind, null, default, identity in rows:
        written = f"{kind[1:]}[]" if kind.startswith("_") else kind
        value = IDENTITY if identity else (default or "").partition("::")[0]
        there.setdefault(table, []).append((column, written, table not in views and null, value))
    declared = {
        table.name: [(name, column.type, column.null, column.default) for name, column in table.columns.items()]
        for table in specification.TABLES
    }
    assert declared == there


def test_every_table_and_column_has_a_meaning_of_one_sentence() -> None:
    told = [table.meaning for table in specification.TABLES]
    told += [column.meaning for table in specification.TABLES for column in table.columns.values()]
    assert [text for text in told if not text.endswith(".") or len(text) > 120] == []


ROWS = [
    (specification.WINDOWS, windows.WindowRow),
    (specification.INFERENCE_CALLS, inference_calls.InferenceCall),
    (specification.FEEDBACK, feedback.Feedback),
    (specification.TRAINING_JOBS, training_jobs.Job),
    (specification.MODEL_CHECKPOINTS, checkpoints.Checkpoint),
    (specification.PROMOTIONS, promotions.Promotion),
    (specification.GATE_VERDICTS, verdicts.StoredVerdict),
    (specification.CHECKPOINT_EVALUATIONS, evaluations.Evaluation),
]


@pytest.mark.parametrize(("table", "record"), ROWS, ids=[table.name for table, _ in ROWS])
def test_a_record_may_miss_what_its_table_may(table: Table, record: type[Any]) -> None:
    hints = get_type_hints(record)
    # What is kept as JSON comes back as an object, and what has a default may be missing before it is written.
    asked = {name: column for name, column in table.columns.items() if column.type != "jsonb"}
    missing = {name for name in asked if type(None) in get_args(hints[name])}
    differ = [name for name, column in asked.items() if (name in missing) != column.null]
    differ = [name for name in differ if not (name in missing and asked[name].default)]
    assert differ == []


def test_a_record_that_is_not_its_table_is_refused() -> None:
    with pytest.raises(TypeError, match="windows differ in agents"):
        specification.WINDOWS.row(
            dataclasses.make_dataclass("Less", [name for name in specification.WINDOWS.columns if name != "agents"])
        )


def test_what_can_be_set_are_columns() -> None:
    assert set(windows.WindowColumns.__annotations__) == set(specification.WINDOWS.columns) - {
        "window_id",
        "changed_at",
    }
    assert set(training_jobs.JobColumns.__annotations__) <= set(specification.TRAINING_JOBS.columns)


def test_values_of_the_core_fit_into_their_tables() -> None:
    kept = set(specification.RAW_TRAJECTORIES.columns) - {"window_id", "steps", "samples", "body", "instruments"}
    kept -= {"chat", "chat_sha256", "given"}
    assert kept == set(TrajectoryRecord.__struct_fields__) - {"window", "samples", "facts", "references"}
    in_quarantine = set(specification.QUARANTINED_TRAJECTORIES.columns) - {"window_id", "quarantined_at", "imported"}
    assert in_quarantine == set(Quarantined.__struct_fields__) - {"window"}
    indexed = set(specification.TRAINING_DATASET_SAMPLES.columns) - {"dataset_id", "group_key", "compared_with"}
    assert indexed < set(Sample.__struct_fields__)


def test_large_values_are_stored_without_a_second_compression(conn: Conn) -> None:
    rows = conn.execute(
        "SELECT relname || '.' || attname, attstorage FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
        "WHERE relnamespace = 'babylon_training'::regnamespace AND relkind = 'r' AND atttypid = 'bytea'::regtype "
        "AND attname IN ('body', 'chat', 'messages')"
    ).fetchall()
    assert len(rows) == 5
    assert {storage for _, storage in rows} == {"e"}


REFUSED = [
    ("INSERT INTO windows (window_id) VALUES ('2026-11-05T14:60')", errors.CheckViolation),
    ("INSERT INTO windows (window_id, status) VALUES ('2026-11-05T14:00', 'done')", errors.CheckViolation),
    (
        "INSERT INTO training_jobs (window_id, chain, state) VALUES ('w', 'c', 'sleeping')",
        errors.CheckViolation,
    ),
    (
        "INSERT INTO training_jobs (window_id, chain, state) VALUES ('w', 'c', 'skipped')",
        errors.CheckViolation,
    ),
    (
        "INSERT INTO promotions (chain, kind, to_id, promoted_by, why) VALUES ('c', 'demotion', 'p', 'me', 'because')",
        errors.CheckViolation,
    ),
    (
        "INSERT INTO inference_calls (call_id, created_at, model, messages, response, token_ids, logprobs) "
        "VALUES ('c', now(), 'm', '', '', '{1,2}', '{-0.5}')",
        errors.CheckViolation,
    ),
]


@pytest.mark.parametrize(("statement", "error"), REFUSED)
def test_the_database_refuses_what_must_not_be(conn: Conn, statement: Any, error: type[Exception]) -> None:
    conn.execute("SET search_path = babylon_training")
    with pytest.raises(error):
        conn.execute(statement)


def test_a_checkpoint_above_the_root_has_a_parent_a_window_and_a_dataset(conn: Conn) -> None:
    with pytest.raises(errors.CheckViolation):
        checkpoints.insert_checkpoint(conn, root(step=1))


@pytest.mark.parametrize("change", ["UPDATE promotions SET why = 'x'", "DELETE FROM promotions", "TRUNCATE promotions"])
def test_promotions_are_only_appended(conn: Conn, change: Any) -> None:
    checkpoints.ensure_root(conn, root())
    conn.execute(
        "INSERT INTO babylon_training.promotions (chain, kind, to_id, promoted_by, why) "
        "VALUES (%s, 'promotion', %s, 'gate', 'first')",
        [CHAIN, root().id],
    )
    conn.commit()
    conn.execute("SET search_path = babylon_training")
    with pytest.raises(errors.RestrictViolation, match="append-only"):
        conn.execute(change)
    conn.rollback()
    assert conn.execute("SELECT why FROM babylon_training.promotions").fetchall() == [("first",)]


def test_numbers_that_json_lacks_become_null(conn: Conn) -> None:
    import numpy as np

    value = {
        "nan": float("nan"),
        "inf": float("inf"),
        "numpy": np.float32(0.5),
        "int": np.int64(3),
        "deep": [float("nan")],
    }
    row = conn.execute("SELECT %s::jsonb", [json_value(value)]).fetchone()
    assert row == ({"nan": None, "inf": None, "numpy": 0.5, "int": 3, "deep": [None]},)


def test_the_sample_index_holds_what_the_dataset_holds(conn: Conn) -> None:
    from babylon_assets.ledger.datasets import dataset_frame, save_dataset

    kept = dataset(sample(0), sample(1, trains_as="skip", skip_reason="alone", reward=None, advantage=None))
    save_dataset(conn, kept)
    frame = dataset_frame(conn, kept.id)
    for name in set(frame.columns) & set(Sample.__struct_fields__):
        told = [None if value != value else value for value in frame[name].tolist()]
        assert told == [getattr(item, name) for item in kept.samples], name


def test_an_earlier_home_has_each_count_of_tokens_under_one_name(conn: Conn) -> None:
    frozen = dataset(sample(0))
    save_dataset(conn, frozen)
    windows.upsert_window(conn, WINDOW, status="trained", trainable_tokens=1, dataset_id=frozen.id)
    windows.upsert_window(conn, LATER, trainable_tokens=5)
    checkpoints.insert_checkpoint(conn, root())
    checkpoints.insert_checkpoint(conn, checkpoint(1, WINDOW, frozen.id, metrics={"loss": 1.0, "trainable_tokens": 1}))
    path = next(Path(__file__).parents[2].glob("migrations/versions/*_trained_tokens.py"))
    revision = runpy.run_path(str(path))
    for statement in (revision["WINDOWS"], revision["CHECKPOINTS"]) * 2:
        conn.execute(statement)
    [one, other] = windows.list_windows(conn)
    assert (one.trainable_tokens, other.trainable_tokens) == (frozen.samples[0].tokens, 5) != (1, 5)
    assert [made.metrics for made in checkpoints.chain(conn, CHAIN)] == [{}, {"loss": 1.0, "trained_tokens": 1}]
