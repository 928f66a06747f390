"""What agents came to: their rewards by window, and which agents the newest windows have."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

from psycopg import Connection

#: A week of hours: what a list of agents looks back over.
WINDOWS = 168

_OLDEST: LiteralString = """
SELECT min(window_id) FROM (
    SELECT window_id FROM babylon_training.windows ORDER BY window_id DESC LIMIT %s) AS newest"""
_AGENTS: LiteralString = """
SELECT agent_id, count(*)::int, count(DISTINCT window_id)::int, avg(score), max(window_id)
FROM babylon_training.trajectory_scores
WHERE window_id >= %(oldest)s AND scorer = 'reward' AND retired IS NULL
    AND position(lower(%(text)s) IN lower(agent_id)) > 0
GROUP BY agent_id ORDER BY avg(score) DESC NULLS LAST, agent_id LIMIT %(limit)s"""
_REWARD: LiteralString = """
    FROM babylon_training.trajectory_scores WHERE agent_id = %(agent)s AND scorer = 'reward' AND retired IS NULL"""
#: From each window to the one before it by the index, so that older ones are not read.
_WINDOWS: LiteralString = f"""
WITH RECURSIVE hours AS (
    SELECT max(window_id) AS hour, 1 AS place {_REWARD}
    UNION ALL SELECT (SELECT max(window_id) {_REWARD} AND window_id < hour), place + 1
    FROM hours WHERE hour IS NOT NULL AND place < %(limit)s)
SELECT hour, mean, trajectories
FROM hours CROSS JOIN LATERAL (
    SELECT avg(score) AS mean, count(*)::int AS trajectories {_REWARD} AND window_id = hour) AS scored
WHERE hour IS NOT NULL ORDER BY hour DESC"""
_PARTS: LiteralString = """
SELECT scorer, scorer_version, step_scores[array_position(steps, %(step)s)],
    step_states[array_position(steps, %(step)s)], step_worth[array_position(steps, %(step)s)], reasoning
FROM babylon_training.trajectory_scores
WHERE window_id = %(window)s AND trajectory_id = %(trajectory)s AND retired IS NULL AND %(step)s = ANY(steps)
ORDER BY scorer = 'reward', scorer"""


class AgentSummary(NamedTuple):
    """An agent in the newest windows: trajectories, windows, mean reward (None: none is known), newest window."""

    agent: str
    trajectories: int
    windows: int
    reward: float | None
    newest: str


class AgentWindow(NamedTuple):
    """An agent's mean reward in one window, over how many trajectories."""

    window: str
    reward: float | None
    trajectories: int


class RewardPart(NamedTuple):
    """What one scorer gave a step; None and NaN where it cannot say. `state` and `worth` are of the reward alone."""

    scorer: str
    version: str
    score: float | None
    state: str | None
    worth: float | None
    reasoning: str | None


def list_agents(conn: Connection[Any], text: str = "", limit: int = 200) -> list[AgentSummary]:
    """The agents of the newest `WINDOWS` windows whose id contains `text`, the best rewarded first."""
    (oldest,) = conn.execute(_OLDEST, [WINDOWS]).fetchall()[0]  # asked apart: the planner knows how much is left
    given = {"oldest": oldest, "text": text, "limit": limit}
    return [AgentSummary(*row) for row in conn.execute(_AGENTS, given)]


def rewards_by_window(conn: Connection[Any], agent: str) -> list[AgentWindow]:
    """An agent's newest windows, at most `WINDOWS`, newest first."""
    return [AgentWindow(*row) for row in conn.execute(_WINDOWS, {"agent": agent, "limit": WINDOWS})]


def reward_parts(conn: Connection[Any], window: str, trajectory: str, step: int) -> list[RewardPart]:
    """What each scorer says of a step now, the weighted sum last."""
    given = {"window": window, "trajectory": trajectory, "step": step}
    return [RewardPart(*row) for row in conn.execute(_PARTS, given)]
