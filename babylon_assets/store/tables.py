"""Our tables' columns, declared once, and how rows enter them. Constraints and indexes are in `migrations/`.

A test compares these declarations with the migrated database, and with the records that the other modules read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from psycopg import Connection, Cursor, sql
from psycopg.types.json import Jsonb
from psycopg.types.string import BytesBinaryDumper

SCHEMA = "babylon_training"


@dataclass(frozen=True)
class Table:
    """A table or view of ours: its columns in order, each with PostgreSQL's name of its type."""

    name: str
    columns: Mapping[str, str]
    schema: str = SCHEMA

    @cached_property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def select(self, rest: str, *columns: str) -> sql.Composed:
        """`SELECT <columns, default all> FROM <table> <rest>`; `rest` is trusted SQL with placeholders."""
        listed = sql.SQL(", ").join(map(sql.Identifier, columns or self.columns))
        return sql.SQL("SELECT {} FROM {} ").format(listed, self.identifier) + sql.SQL(rest)

    def delete(self, rest: str) -> sql.Composed:
        """`DELETE FROM <table> <rest>`."""
        return sql.SQL("DELETE FROM {} ").format(self.identifier) + sql.SQL(rest)

    def insert(self, columns: Iterable[str], rest: str = "") -> sql.Composed:
        """`INSERT INTO <table> (<columns>) VALUES (%(<column>)s, ...) <rest>`."""
        names = list(columns)
        return sql.SQL("INSERT INTO {} ({}) VALUES ({}) {}").format(
            self.identifier,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(map(sql.Placeholder, names)),
            sql.SQL(rest),
        )

    def copy(
        self,
        conn: Connection[Any],
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        as_they_are: Collection[str] = (),
    ) -> None:
        """Add rows by binary COPY, in the caller's transaction; columns left out take their defaults.

        Columns that come `as_they_are` have bytes in PostgreSQL's binary form of their type already.
        """
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            self.identifier, sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with conn.cursor() as cursor:
            # The driver's own choice for bytea is one in Python that takes its wrapper of bytes as well: three times
            # the cost of handing bytes over.
            cursor.adapters.register_dumper(bytes, BytesBinaryDumper)
            self._copy(cursor, statement, columns, rows, as_they_are)

    def _copy(
        self,
        cursor: Cursor[Any],
        statement: sql.Composed,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        as_they_are: Collection[str],
    ) -> None:
        with cursor.copy(statement) as copy:
            copy.set_types(["bytea" if name in as_they_are else self.columns[name] for name in columns])
            for row in rows:
                copy.write_row(row)


def json_value(value: Any) -> Jsonb | None:
    """A value for a jsonb column. Numbers that are not finite become null; numpy's scalars are taken as Python's."""
    return None if value is None else Jsonb(value, dumps=_dump_json)


def _dump_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise NotImplementedError(f"no JSON form for {type(value).__name__}")


WINDOWS = Table(
    "windows",
    {
        "window_id": "text",
        "status": "text",
        "fingerprint": "text",
        "trajectories": "int4",
        "agents": "int4",
        "samples": "int4",
        "trainable_tokens": "int8",
        "reward_mean": "float8",
        "reward_std": "float8",
        "dataset_id": "text",
        "checkpoint_id": "text",
        "parent_id": "text",
        "reference": "jsonb",
        "reason": "text",
        "changed_at": "timestamptz",
    },
)
RAW_TRAJECTORIES = Table(
    "raw_trajectories",
    {
        "window_id": "text",
        "trajectory_id": "text",
        "agent_id": "text",
        "scenario_id": "text",
        "shape": "text",
        "start_time": "timestamptz",
        "end_time": "timestamptz",
        "final_status": "text",
        "final_balance": "float8",
        "final_pnl": "float8",
        "content_hash": "text",
        "steps": "int4",
        "samples": "int4",
        "body": "bytea",
        "instruments": "text[]",
        "chat": "bytea",
        "chat_sha256": "text",
        "given": "jsonb",
    },
)
QUARANTINED_TRAJECTORIES = Table(
    "quarantined_trajectories",
    {
        "window_id": "text",
        "trajectory_id": "text",
        "reason": "text",
        "place": "text",
        "row_hash": "text",
        "quarantined_at": "timestamptz",
        "imported": "bool",
    },
)
INFERENCE_CALLS = Table(
    "inference_calls",
    {
        "call_id": "text",
        "created_at": "timestamptz",
        "model": "text",
        "policy": "text",
        "policy_step": "int4",
        "agent_id": "text",
        "trajectory_id": "text",
        "step": "int4",
        "messages": "bytea",
        "response": "bytea",
        "prompt_token_ids": "int4[]",
        "token_ids": "int4[]",
        "logprobs": "float8[]",
        "temperature": "float8",
        "seed": "int8",
        "latency_ms": "float8",
        "finish_reason": "text",
        "sampling": "jsonb",
    },
)
TRAJECTORY_SCORES = Table(
    "trajectory_scores",
    {
        "window_id": "text",
        "trajectory_id": "text",
        "agent_id": "text",
        "scorer": "text",
        "scorer_version": "text",
        "score": "float8",
        "final": "bool",
        "steps": "int4[]",
        "step_scores": "float8[]",
        "step_states": "text[]",
        "step_worth": "float8[]",
        "step_final": "bool[]",
        "reasoning": "text",
        "metrics": "jsonb",
        "scored_at": "timestamptz",
        "revision": "int4",
        "retired": "int4",
        "retired_at": "timestamptz",
        "content_hash": "text",
    },
)
RULER_JUDGMENTS = Table(
    "ruler_judgments",
    {
        "id": "text",
        "window_id": "text",
        "group_key": "text",
        "model": "text",
        "samples": "text[]",
        "agents": "text[]",
        "scores": "float8[]",
        "explanations": "text[]",
        "attempts": "int4",
        "error": "text",
        "prompt_tokens": "int8",
        "completion_tokens": "int8",
        "cost_usd": "float8",
        "judged_at": "timestamptz",
    },
)
RULER_SCORES = Table(
    "ruler_scores",
    {
        "window_id": "text",
        "agent_id": "text",
        "trajectory_id": "text",
        "score": "float8",
        "reasoning": "text",
        "scoring_method": "text",
        "metrics": "jsonb",
    },
)
TRAINING_DATASETS = Table(
    "training_datasets",
    {
        "id": "text",
        "window_id": "text",
        "samples": "int4",
        "trainable_tokens": "int8",
        "counts": "jsonb",
        "body": "bytea",
        "created_at": "timestamptz",
    },
)
#: A view of `TRAINING_DATASET_TRAJECTORIES`, a row per sample.
TRAINING_DATASET_SAMPLES = Table(
    "training_dataset_samples",
    {
        "dataset_id": "text",
        "sample_id": "text",
        "trajectory_id": "text",
        "agent_id": "text",
        "step": "int4",
        "call": "int4",
        "group_key": "text",
        "policy": "text",
        "reward": "float8",
        "advantage": "float8",
        "trains_as": "text",
        "skip_reason": "text",
        "tokens": "int4",
    },
)
TRAINING_DATASET_TRAJECTORIES = Table(
    "training_dataset_trajectories",
    {
        "dataset_id": "text",
        "trajectory_id": "text",
        "agent_id": "text",
        "chat_sha256": "text",
        "chat": "bytea",
        "steps": "int4[]",
        "calls": "int4[]",
        "group_keys": "text[]",
        "policies": "text[]",
        "rewards": "float8[]",
        "advantages": "float8[]",
        "trains_as": "text[]",
        "skip_reasons": "text[]",
        "tokens": "int4[]",
    },
)
LATE_SAMPLES = Table(
    "late_samples",
    {
        "chain": "text",
        "window_id": "text",
        "sample_id": "text",
        "text_sha256": "text",
        "reward": "float8",
        "agent_id": "text",
        "dataset_id": "text",
        "into_window": "text",
        "checkpoint_id": "text",
        "noted_at": "timestamptz",
    },
)
MODEL_CHECKPOINTS = Table(
    "model_checkpoints",
    {
        "id": "text",
        "chain": "text",
        "step": "int4",
        "parent_id": "text",
        "window_id": "text",
        "dataset_id": "text",
        "backend": "text",
        "base_model": "text",
        "settings": "jsonb",
        "seed": "int8",
        "versions": "jsonb",
        "metrics": "jsonb",
        "path": "text",
        "weights_sha256": "text",
        "dagster_run_id": "text",
        "created_at": "timestamptz",
        "dead_end": "text",
    },
)
TRAINING_JOBS = Table(
    "training_jobs",
    {
        "id": "int8",
        "window_id": "text",
        "chain": "text",
        "parent_id": "text",
        "dataset_id": "text",
        "state": "text",
        "reason": "text",
        "backend": "text",
        "external_id": "text",
        "checkpoint_id": "text",
        "dagster_run_id": "text",
        "usage": "jsonb",
        "cost_usd": "float8",
        "created_at": "timestamptz",
        "heartbeat": "timestamptz",
    },
)
CHECKPOINT_EVALUATIONS = Table(
    "checkpoint_evaluations",
    {
        "checkpoint_id": "text",
        "evaluation": "text",
        "version": "text",
        "window_id": "text",
        "baseline_id": "text",
        "value": "float8",
        "low": "float8",
        "high": "float8",
        "seeds": "int8[]",
        "results": "jsonb",
        "created_at": "timestamptz",
    },
)
PROMOTIONS = Table(
    "promotions",
    {
        "id": "int8",
        "chain": "text",
        "kind": "text",
        "from_id": "text",
        "to_id": "text",
        "promoted_by": "text",
        "why": "text",
        "verdict": "jsonb",
        "dagster_run_id": "text",
        "promoted_at": "timestamptz",
    },
)
GATE_VERDICTS = Table(
    "gate_verdicts",
    {
        "checkpoint_id": "text",
        "chain": "text",
        "champion_id": "text",
        "passed": "bool",
        "why": "text",
        "verdict": "jsonb",
        "dagster_run_id": "text",
        "judged_at": "timestamptz",
    },
)
TABLES = (
    WINDOWS,
    RAW_TRAJECTORIES,
    QUARANTINED_TRAJECTORIES,
    INFERENCE_CALLS,
    TRAJECTORY_SCORES,
    RULER_JUDGMENTS,
    RULER_SCORES,
    TRAINING_DATASETS,
    TRAINING_DATASET_SAMPLES,
    TRAINING_DATASET_TRAJECTORIES,
    LATE_SAMPLES,
    MODEL_CHECKPOINTS,
    TRAINING_JOBS,
    CHECKPOINT_EVALUATIONS,
    PROMOTIONS,
    GATE_VERDICTS,
)
