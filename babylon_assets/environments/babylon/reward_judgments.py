"""The game's table `reward_judgments`: the game's own judgments, read; and those of our judge, written.

Ours are written where WRITE_REWARD_JUDGMENTS says so, and never over a row that is not ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pandas as pd
from psycopg import Connection

from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.json_nesting import decode_cut
from babylon_assets.domain.llm_judge import JudgeScore
from babylon_assets.environments.babylon.steps import as_number

_JUDGMENT = """
    INSERT INTO public.reward_judgments AS kept ("id", "trajectoryId", "judgeModel", "judgeVersion", "overallScore",
        "componentScoresJson", "rank", "normalizedScore", "groupId", "reasoning", "criteriaJson", "judgedAt")
    VALUES (%(id)s, %(trajectory)s, %(model)s, %(version)s, %(score)s, %(components)s, %(rank)s, %(normalized)s,
        %(window)s, %(reasoning)s, %(criteria)s, CURRENT_TIMESTAMP AT TIME ZONE 'UTC')
    ON CONFLICT ("trajectoryId") DO UPDATE SET
        "judgeModel" = excluded."judgeModel", "judgeVersion" = excluded."judgeVersion",
        "overallScore" = excluded."overallScore", "componentScoresJson" = excluded."componentScoresJson",
        "rank" = excluded."rank", "normalizedScore" = excluded."normalizedScore", "groupId" = excluded."groupId",
        "reasoning" = excluded."reasoning", "criteriaJson" = excluded."criteriaJson", "judgedAt" = excluded."judgedAt"
    WHERE starts_with(kept."id", 'ruler-')
        AND (kept."judgeVersion", kept."overallScore", kept."rank", kept."normalizedScore", kept."reasoning")
        IS DISTINCT FROM (excluded."judgeVersion", excluded."overallScore", excluded."rank",
            excluded."normalizedScore", excluded."reasoning")"""


#: Judges that are a formula of the game's, not a model.
FORMULAS = ("feed-deterministic", "trust-v1")
#: Parts of a judgment that say how an agent deals with others, by the names of their scorers and of the game.
PARTS = {"game_trust": "trust", "game_scam_safety": "scam_safety", "game_over_refusal": "over_refusal"}
_FOREIGN = """
    SELECT "trajectoryId", "judgeModel", "judgeVersion", "overallScore", {parts} FROM public.reward_judgments
    WHERE "trajectoryId" = ANY(%s) AND NOT starts_with("id", 'ruler-')
      AND (%s::timestamp IS NULL OR "judgedAt" <= %s)"""


def read_judgments(
    conn: Connection[Any], steps: pd.DataFrame, as_of: datetime | None = None, *, has_parts: bool = True
) -> pd.DataFrame:
    """The game's own judgment of each step's trajectory, and who gave it; None and NaN where there is none.

    Args:
        has_parts: the table has the parts of a judgment, and they may be read.

    Returns:
        On the index of `steps`: `judgment` in [0, 1], `judge`, such as `formula feed-deterministic` or `model X`, and a
        column for each of `PARTS` that any of these judgments has.
    """
    at = None if as_of is None else as_of.astimezone(UTC).replace(tzinfo=None)
    query = _FOREIGN.replace("{parts}", '"componentScoresJson"' if has_parts else "NULL")
    rows = conn.execute(query.encode(), [sorted(set(steps["trajectory_id"])), at, at]).fetchall()
    judges = {name: _describe_judge(model, version) for name, model, version, _, _ in rows}
    columns = {"judgment": {name: score for name, _, _, score, _ in rows}}
    parts = {name: _read_parts(text) for name, _, _, _, text in rows}
    for scorer, part in PARTS.items():
        filled = {name: known[part] for name, known in parts.items() if part in known}
        columns |= {scorer: filled} if filled else {}
    numbers = {name: steps["trajectory_id"].map(values).astype("float64") for name, values in columns.items()}
    return pd.DataFrame({**numbers, "judge": steps["trajectory_id"].map(judges).astype("object")}, index=steps.index)


def _read_parts(text: str | None) -> dict[str, float]:
    """The parts of a judgment that are numbers."""
    try:
        values = decode_cut(json.loads, (text or "{}").encode())
    except ValueError:
        return {}
    known = values.items() if isinstance(values, dict) else ()
    numbers = ((name, as_number(value)) for name, value in known if not isinstance(value, str))
    return {name: number for name, number in numbers if number is not None}


def _describe_judge(model: str, version: str) -> str:
    is_formula = any(name.startswith(formula) for name in (model, version) for formula in FORMULAS)
    return f"{'formula' if is_formula else 'model'} {model}"


def write_judgments(
    conn: Connection[Any], window: str, verdicts: Sequence[JudgeScore], *, model: str, version: str, rubric: str
) -> int:
    """Put a window's verdicts into `reward_judgments`, a row per trajectory; says how many rows are new or changed.

    `rank` and `normalizedScore` (0 the worst, 1 the best; null where all are equal) are among the window's
    trajectories, `componentScoresJson` has the score of each step. Runs in the caller's transaction.

    Raises:
        SourceError: the table is missing, or this role may not write it.
    """
    scores = [verdict.score for verdict in verdicts]
    check_writable(conn)
    low, width = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
    count = 0
    for verdict in verdicts:
        row = {
            "id": "ruler-" + sha256(verdict.trajectory_id.encode()).hexdigest()[:24],
            "trajectory": verdict.trajectory_id,
            "model": model,
            "version": version,
            "score": verdict.score,
            "components": json.dumps({"steps": verdict.steps}),
            "rank": 1 + sum(score > verdict.score for score in scores),
            "normalized": (verdict.score - low) / width if width else None,
            "window": window,
            "reasoning": verdict.reasoning.replace("\0", "\ufffd"),
            "criteria": json.dumps({"rubric": rubric}),
        }
        count += conn.execute(_JUDGMENT, row).rowcount
    return count


def check_writable(conn: Connection[Any]) -> None:
    """Check that this role may write `reward_judgments`.

    Raises:
        SourceError: it may not, or the table is missing.
    """
    row = conn.execute(
        "SELECT coalesce(bool_and(has_table_privilege(oid, kind)), false) FROM pg_class, "
        "unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS kind "
        "WHERE relnamespace = 'public'::regnamespace AND relname = 'reward_judgments'"
    ).fetchone()
    if row is None or not row[0]:
        raise SourceError(
            'the game\'s table "reward_judgments" is missing or may not be written; grant this role SELECT, INSERT and '
            "UPDATE on it, or set WRITE_REWARD_JUDGMENTS=false"
        )
