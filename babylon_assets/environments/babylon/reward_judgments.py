"""The game's table `reward_judgments`: a judge's verdicts, written where WRITE_REWARD_JUDGMENTS says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from psycopg import Connection

from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.llm_judge import JudgeScore

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
    WHERE (kept."judgeVersion", kept."overallScore", kept."rank", kept."normalizedScore", kept."reasoning")
        IS DISTINCT FROM (excluded."judgeVersion", excluded."overallScore", excluded."rank",
            excluded."normalizedScore", excluded."reasoning")"""


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
