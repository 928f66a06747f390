"""The rights that the settings ask for and the role lacks: found before anything is trained, not after."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.sessions import only_reads

_MAY = """
    SELECT c.oid IS NOT NULL, coalesce(has_table_privilege(c.oid, %s), false)
    FROM (SELECT to_regclass(%s) AS oid) c"""


def missing_rights(conn: Connection[Any], settings: Settings) -> list[str]:
    """A sentence for each right that is missing, which says how it is granted or done without."""
    if (needed := _needed(settings)) and only_reads(conn):
        return [
            f"{setting} is true and the database only reads; set {setting}=false, or DATABASE_URL to the primary"
            for setting in dict.fromkeys(setting for setting, _, _ in needed)
        ]
    return [
        sentence
        for setting, table, rights in needed
        for right in rights
        if (sentence := _lacking(conn, setting, table, right))
    ]


def _needed(settings: Settings) -> list[tuple[str, str, tuple[str, ...]]]:
    needed: list[tuple[str, str, tuple[str, ...]]] = []
    if settings.automation.train_requests:
        needed.append(("TRAIN_REQUESTS", "training_batches", ("SELECT", "UPDATE")))
    if settings.gate.write_trained_models:
        needed += [
            ("WRITE_TRAINED_MODELS", "trained_models", ("SELECT", "INSERT", "UPDATE")),
            ("WRITE_TRAINED_MODELS", "trajectories", ("UPDATE",)),
        ]
    if settings.judge.write_reward_judgments:
        needed.append(("WRITE_REWARD_JUDGMENTS", "reward_judgments", ("SELECT", "INSERT", "UPDATE")))
    return needed


def _lacking(conn: Connection[Any], setting: str, table: str, right: str) -> str | None:
    row = conn.execute(_MAY, [right, f"public.{table}"]).fetchone()
    there, may = row if row is not None else (False, False)
    if not there:
        return f"{setting} is true and the table {table} is missing; have it made, or set {setting}=false"
    if not may:
        return f"{setting} is true and the role lacks {right} on {table}; grant it, or set {setting}=false"
    return None
