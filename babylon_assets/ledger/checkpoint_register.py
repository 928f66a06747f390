"""Checkpoints as a register: each with its state, its parent, its main evaluation and its window's reward.

Read a page at a time, whatever the length of the chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.domain import checkpoint_states as states
from babylon_assets.domain.policies import BRANCH
from babylon_assets.ledger.evaluations import REWARD

#: Of all checkpoints, and of a few: a LIMIT keeps the planner from reading every promotion for a page.
_PROMOTED: LiteralString = "EXISTS (SELECT FROM babylon_training.promotions WHERE to_id = made.id)"
_ONE_PROMOTED: LiteralString = "(SELECT true FROM babylon_training.promotions WHERE to_id = made.id LIMIT 1)"
#: The newest promotion of each chain says what is served; chains are stepped over, not their promotions.
_KNOWN: LiteralString = f"""
WITH RECURSIVE chains AS (
    SELECT min(chain) AS chain FROM babylon_training.promotions
    UNION ALL SELECT (
        SELECT min(later.chain) FROM babylon_training.promotions AS later WHERE later.chain > chains.chain)
    FROM chains WHERE chain IS NOT NULL),
served AS MATERIALIZED (
    SELECT (SELECT to_id FROM babylon_training.promotions AS newest
            WHERE newest.chain = chains.chain ORDER BY newest.id DESC LIMIT 1) AS id
    FROM chains WHERE chain IS NOT NULL),
known AS (
    SELECT made.id, made.created_at, made.chain, made.step, CASE
        WHEN EXISTS (SELECT FROM served WHERE served.id = made.id) THEN '{states.SERVED}'
        WHEN starts_with(made.rejected, 'refused') THEN '{states.REJECTED}'
        WHEN made.rejected IS NOT NULL THEN '{states.ROLLED_BACK}'
        WHEN {_PROMOTED} THEN '{states.SERVED_BEFORE}'
        WHEN made.step = 0 THEN '{states.BASE_MODEL}'
        WHEN (SELECT passed FROM babylon_training.gate_verdicts WHERE checkpoint_id = made.id) THEN '{states.PASSED}'
        WHEN strpos(made.chain, '{BRANCH}') > 0 THEN '{states.ON_A_BRANCH}'
        ELSE '{states.NO_VERDICT}' END AS state
    FROM babylon_training.model_checkpoints AS made)"""
_IN_ORDER: LiteralString = """
    WHERE %(ids)s::text[] IS NULL OR id = ANY(%(ids)s) ORDER BY created_at DESC, chain, step DESC"""
#: The rows of a page are picked before their states are asked for.
_OF_ANY_STATE: LiteralString = f""", picked AS MATERIALIZED (
    SELECT id FROM babylon_training.model_checkpoints {_IN_ORDER} LIMIT %(limit)s OFFSET %(offset)s),
page AS (SELECT * FROM known WHERE id IN (SELECT id FROM picked))"""
#: States are asked for in the order of the page, until it is full: OFFSET 0 keeps the order inside. With coalesce the
#: planner expects half of the rows to be in the state, and reads them by the index instead of sorting all.
_OF_STATE: LiteralString = f""", page AS (
    SELECT * FROM (SELECT * FROM known {_IN_ORDER} OFFSET 0) AS in_order
    WHERE coalesce(state = %(state)s, false) LIMIT %(limit)s OFFSET %(offset)s)"""
_ROWS: LiteralString = f"""
SELECT made.id, made.chain || '@' || made.step AS policy, made.chain, made.step, made.window_id AS window,
    made.dataset_id, made.backend, made.base_model, made.created_at, page.state, made.rejected,
    parent.chain || '@' || parent.step AS parent, played.reward_mean AS window_reward,
    best.evaluation, best.value, best.low, best.high, best.valid_share
FROM page JOIN babylon_training.model_checkpoints AS made USING (id)
LEFT JOIN babylon_training.model_checkpoints AS parent ON parent.id = made.parent_id
LEFT JOIN babylon_training.windows AS played ON played.window_id = made.window_id
{REWARD}
ORDER BY page.created_at DESC, page.chain, page.step DESC"""
_COUNTS: LiteralString = " SELECT state, count(*)::int FROM known GROUP BY state"
_STATES: LiteralString = " SELECT id, state FROM known"
_NAMES: LiteralString = """
SELECT chain || '@' || step FROM babylon_training.model_checkpoints
WHERE path <> '' OR step = 0 ORDER BY created_at DESC, step DESC LIMIT %s"""
_NAMES_OF_CHAIN: LiteralString = """
SELECT chain || '@' || step FROM babylon_training.model_checkpoints AS made
WHERE chain = %s AND (path <> '' OR step = 0)
ORDER BY NOT EXISTS (SELECT FROM babylon_training.checkpoint_evaluations WHERE checkpoint_id = made.id),
    created_at DESC, step DESC LIMIT %s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredCheckpoint:
    """One checkpoint as the register shows it.

    Attributes:
        state: one of `checkpoint_states.STATES`.
        rejected: why the chain does not go on from it.
        window_reward: mean reward of the window that it was trained on, which its parent or others answered.
        evaluation, value, low, high, valid_share: the measurement of its reward, see `evaluations.REWARD`; None where
            there is none.
    """

    id: str
    policy: str
    chain: str
    step: int
    parent: str | None
    window: str | None
    dataset_id: str | None
    backend: str
    base_model: str
    created_at: datetime
    state: str
    rejected: str | None
    window_reward: float | None
    evaluation: str | None
    value: float | None
    low: float | None
    high: float | None
    valid_share: float | None


def read_register(
    conn: Connection[Any],
    *,
    state: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[RegisteredCheckpoint]:
    """A page of the register, newest first.

    Args:
        state: checkpoints in this state alone.
        ids: these checkpoints alone.
    """
    given = {"state": state, "ids": None if ids is None else list(ids), "limit": limit, "offset": offset}
    with conn.cursor(row_factory=class_row(RegisteredCheckpoint)) as cursor:
        page = _OF_ANY_STATE if state is None else _OF_STATE
        return cursor.execute(_KNOWN.replace(_PROMOTED, _ONE_PROMOTED) + page + _ROWS, given).fetchall()


def count_states(conn: Connection[Any]) -> dict[str, int]:
    """How many checkpoints are in each state, in the order of the table; states that none has are left out."""
    counts = dict(conn.execute(_KNOWN + _COUNTS).fetchall())
    return {state: counts[state] for state in states.STATES if state in counts}


def read_states(conn: Connection[Any]) -> dict[str, str]:
    """The state of every checkpoint, by its id."""
    return dict(conn.execute(_KNOWN + _STATES).fetchall())


def newest_names(conn: Connection[Any], most: int = 200) -> list[str]:
    """Names of the newest policies whose weights are kept, newest first."""
    return [name for (name,) in conn.execute(_NAMES, [most])]


def newest_of_chain(conn: Connection[Any], chain: str, most: int) -> list[str]:
    """The same of one chain, those that were evaluated before the others."""
    return [name for (name,) in conn.execute(_NAMES_OF_CHAIN, [chain, most])]
