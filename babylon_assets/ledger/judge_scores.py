"""The table `ruler_judgments`: what a judge was asked and said, under the hash of what it was asked.

A repeated question is answered from here. How a judge is asked is the business of `evaluation.llm_judge`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from babylon_assets.domain.llm_judge import Comparison, JudgeAnswer
from babylon_assets.ledger.specification import RULER_JUDGMENTS

_FIELDS = ("scores", "explanations", "error", "attempts", "prompt_tokens", "completion_tokens", "cost_usd")
_ADD = """ON CONFLICT (id) DO UPDATE SET
    scores = excluded.scores, explanations = excluded.explanations, error = excluded.error, judged_at = now(),
    attempts = ruler_judgments.attempts + excluded.attempts,
    prompt_tokens = ruler_judgments.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = ruler_judgments.completion_tokens + excluded.completion_tokens,
    cost_usd = ruler_judgments.cost_usd + excluded.cost_usd
    WHERE ruler_judgments.scores IS NULL"""


def find(conn: Connection[Any], ids: Iterable[str]) -> dict[str, JudgeAnswer]:
    """What is kept of these comparisons, by id; failures as well."""
    query = RULER_JUDGMENTS.select("WHERE id = ANY(%s)", "id", *_FIELDS)
    return {row[0]: JudgeAnswer(*row[1:]) for row in conn.execute(query, [list(ids)])}


def keep(conn: Connection[Any], comparison: Comparison, model: str, judgment: JudgeAnswer) -> None:
    """Keep what came of asking. Requests add to those of before; a verdict that is there already stays."""
    row = {
        "id": comparison.id,
        "window_id": comparison.window,
        "group_key": comparison.group,
        "model": model,
        "samples": [candidate.sample_id for candidate in comparison.candidates],
        "agents": sorted({candidate.agent_id for candidate in comparison.candidates}),
        **{name: getattr(judgment, name) for name in _FIELDS},
    }
    for name in ("scores", "explanations"):
        row[name] = None if row[name] is None else list(row[name])
    with conn.transaction():
        conn.execute(RULER_JUDGMENTS.insert(row, _ADD), row)
