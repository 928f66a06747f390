"""The table `trajectory_scores`: what each scorer gave each step of a window, one row per trajectory and scorer.

How scores are made is the business of `core.rewards`. The weighted sum, the reward, is kept as a scorer of its own; its
row also holds what is known of each step's trade.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from psycopg import Connection

from babylon_assets.store.database import window_lock
from babylon_assets.store.tables import TRAJECTORY_SCORES

REWARD = "reward"
_KEYS = ("window", "trajectory_id", "agent_id", "step")
_FACTS = ("state", "worth", "final")
_WRITTEN = (
    "window_id",
    "trajectory_id",
    "agent_id",
    "scorer",
    "scorer_version",
    "score",
    "final",
    "steps",
    "step_scores",
    "step_states",
    "step_worth",
    "step_final",
)


def replace_scores(conn: Connection[Any], window: str, scores: pd.DataFrame, versions: Mapping[str, str]) -> None:
    """Put these scores in the place of all that were kept of the window, in one transaction.

    Args:
        scores: as of `rewards.score_window`, a row per step: window, trajectory_id, agent_id, step, state, worth, a
            float column per scorer, reward and final. NaN is "not known" and is stored as null, never as 0.
        versions: version by scorer; the reward's is made of all of them.
    """
    known = {**versions, REWARD: ",".join(f"{name}@{versions[name]}" for name in sorted(versions))}
    scorers = [name for name in scores.columns if name in known]
    with conn.transaction():
        window_lock(conn, window)
        conn.execute(TRAJECTORY_SCORES.delete("WHERE window_id = %s"), [window])
        rows = (
            row
            for trajectory in _by_trajectory(scores)
            for scorer in scorers
            for row in [_row(window, trajectory, scorer, known[scorer])]
        )
        TRAJECTORY_SCORES.copy(conn, _WRITTEN, rows)


def _by_trajectory(scores: pd.DataFrame) -> Iterator[dict[str, list[Any]]]:
    """The columns of each trajectory's steps as lists, null for NaN; trajectories in the order of their first step."""
    codes, _ = pd.factorize(scores["trajectory_id"])
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-2))
    columns = {str(name): _listed(scores[name].iloc[order]) for name in scores.columns}
    for start, end in pairwise(bounds):
        yield {name: values[start:end] for name, values in columns.items()}


def _listed(values: pd.Series[Any]) -> list[Any]:
    return [None if value != value else value for value in values.tolist()]


def _row(window: str, trajectory: Mapping[str, list[Any]], scorer: str, version: str) -> tuple[Any, ...]:
    values = trajectory[scorer]
    known = [value for value in values if value is not None]
    facts = [trajectory[name] for name in ("state", "worth", "final")] if scorer == REWARD else [None, None, None]
    return (
        window,
        trajectory["trajectory_id"][0],
        trajectory["agent_id"][0],
        scorer,
        version,
        sum(known) / len(known) if known else None,
        all(trajectory["final"]),
        trajectory["step"],
        values,
        *facts,
    )


def read_scores(conn: Connection[Any], window: str) -> pd.DataFrame:
    """The scores of a window as `replace_scores` was given them, ordered by trajectory id, scorers by name.

    Returns:
        A row per step: window, trajectory_id, agent_id, step (int64), state, worth (float64), a float64 column per
        scorer, reward and final (bool). Empty, without scorers' columns, for a window that was not scored.
    """
    columns = (
        "trajectory_id",
        "agent_id",
        "scorer",
        "steps",
        "step_scores",
        "step_states",
        "step_worth",
        "step_final",
    )
    wanted = TRAJECTORY_SCORES.select('WHERE window_id = %s ORDER BY trajectory_id COLLATE "C", scorer', *columns)
    data: dict[str, list[Any]] = {name: [] for name in (*_KEYS, *_FACTS)}
    scorers: dict[str, list[Any]] = {}
    with conn.cursor(binary=True) as cursor:
        for trajectory, agent, scorer, steps, values, states, worth, final in cursor.execute(wanted, [window]):
            scorers.setdefault(scorer, []).extend(values)
            if scorer == REWARD:
                for name, part in (("step", steps), ("state", states), ("worth", worth), ("final", final)):
                    data[name].extend(part)
                data["trajectory_id"].extend([trajectory] * len(steps))
                data["agent_id"].extend([agent] * len(steps))
    data["window"] = [window] * len(data["step"])
    return _frame(data, scorers)


def _frame(data: Mapping[str, list[Any]], scorers: Mapping[str, list[Any]]) -> pd.DataFrame:
    rewards = scorers.get(REWARD, [])
    named = {name: scorers[name] for name in sorted(scorers) if name != REWARD}
    kinds = {"step": "int64", "final": "bool", **dict.fromkeys(("worth", REWARD, *named), "float64")}
    columns = {
        **{name: data[name] for name in (*_KEYS, "state", "worth")},
        **named,
        REWARD: rewards,
        "final": data["final"],
    }
    return pd.DataFrame({name: pd.Series(v, dtype=kinds.get(name, "object")) for name, v in columns.items()})
