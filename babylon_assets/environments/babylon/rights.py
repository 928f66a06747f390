"""The rights that the settings ask for and the role lacks: found before anything is trained, not after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.reward_judgments import PARTS
from babylon_assets.ledger.sessions import only_reads

_MAY = """
    SELECT c.oid IS NOT NULL, coalesce(CASE WHEN %(columns)s::text[] = '{}' THEN has_table_privilege(c.oid, %(right)s)
        ELSE (SELECT bool_and(has_column_privilege(c.oid, name, %(right)s)) FROM unnest(%(columns)s::text[]) AS name)
        END, false), current_user
    FROM (SELECT to_regclass(%(table)s) AS oid) c"""


class _Need(NamedTuple):
    """A table with the rights on it that a setting asks for; UPDATE of these columns only, if any are named.

    Attributes:
        without: how to do without.
        required: whether the table must be there.
    """

    setting: str
    without: str
    table: str
    rights: tuple[str, ...]
    columns: tuple[str, ...] = ()
    required: bool = True


def missing_rights(conn: Connection[Any], settings: Settings) -> list[str]:
    """A sentence for each table on which a right is missing, with the GRANT to run and how to do without."""
    needed = _needed(settings)
    if only_reads(conn) and (writes := [need for need in needed if need.rights != ("SELECT",)]):
        return [
            f"{setting} is true and the database only reads; set {setting}=false, or DATABASE_URL to the primary"
            for setting in dict.fromkeys(need.setting for need in writes)
        ]
    return [sentence for need in needed if (sentence := _lacking(conn, need))]


def _needed(settings: Settings) -> list[_Need]:
    needed: list[_Need] = []
    if settings.automation.train_requests:
        without = "set TRAIN_REQUESTS=false"
        needed.append(_Need("TRAIN_REQUESTS", without, "training_batches", ("SELECT", "UPDATE")))
    if settings.gate.write_trained_models:
        setting, without = "WRITE_TRAINED_MODELS", "set WRITE_TRAINED_MODELS=false"
        marks = ("usedInTraining", "trainedInBatch", "updatedAt")
        needed += [
            _Need(setting, without, "trained_models", ("SELECT", "INSERT", "UPDATE")),
            _Need(setting, without, "trajectories", ("UPDATE",), marks),
            _Need(setting, without, "benchmark_results", ("SELECT", "INSERT"), required=False),
        ]
    if settings.judge.write_reward_judgments:
        setting, without = "WRITE_REWARD_JUDGMENTS", "set WRITE_REWARD_JUDGMENTS=false"
        needed.append(_Need(setting, without, "reward_judgments", ("SELECT", "INSERT", "UPDATE")))
    elif judged := sorted({"game_judgment", *PARTS} & settings.rewards.weights.keys()):
        setting, without = f"REWARD_WEIGHTS={judged[0]}", f"take {judged[0]} out of REWARD_WEIGHTS"
        needed.append(_Need(setting, without, "reward_judgments", ("SELECT",)))
    return needed


def _lacking(conn: Connection[Any], need: _Need) -> str | None:
    asked: dict[str, Any] = {"table": f"public.{need.table}", "columns": list(need.columns)}
    rows = {right: conn.execute(_MAY, asked | {"right": right}).fetchone() for right in need.rights}
    known = {right: row for right, row in rows.items() if row is not None}
    phrase = need.setting if "=" in need.setting else f"{need.setting} is true"
    if not all(there for there, _, _ in known.values()):
        return (
            f"{phrase} and the table {need.table} is missing; have it made, or {need.without}"
            if need.required
            else None
        )
    lacked = [right for right, (_, may, _) in known.items() if not may]
    if not lacked:
        return None
    role = next(iter(known.values()))[2]
    return f"{phrase} and the role lacks {' and '.join(lacked)} on {need.table}; {_grant(need, lacked, role)}"


def _grant(need: _Need, rights: Sequence[str], role: str) -> str:
    columns = ", ".join(f'"{name}"' for name in need.columns)
    listed = ", ".join(f"{right} ({columns})" if columns else right for right in rights)
    return f'run GRANT {listed} ON public.{need.table} TO "{role}", or {need.without}'
