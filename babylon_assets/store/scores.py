"""The table `trajectory_scores`: what each scorer gave each step of a window, one row per trajectory and scorer.

How scores are made is the business of `core.rewards`. The weighted sum, the reward, is kept as a scorer of its own; its
row also holds what is known of each step's trade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
from psycopg import Connection

from babylon_assets.store.arrays import fixed_arrays, text_arrays
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
_ARRAYS = ("steps", "step_scores", "step_states", "step_worth", "step_final")


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
        if len(scores):
            TRAJECTORY_SCORES.copy(conn, _WRITTEN, _rows(window, scores, scorers, known), as_they_are=_ARRAYS)


def _rows(
    window: str, scores: pd.DataFrame, scorers: Sequence[str], versions: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    """A row per scorer and trajectory, the trajectories in the order of their first step."""
    order, bounds = _by_trajectory(scores)
    column = {str(name): scores[name].to_numpy()[order] for name in scores.columns}
    starts = bounds[:-1]
    ids, agents = (column[name][starts].tolist() for name in ("trajectory_id", "agent_id"))
    final = np.logical_and.reduceat(column["final"].astype(bool), starts).tolist()
    steps = list(fixed_arrays(column["step"], bounds, "int4"))
    for scorer in scorers:
        values = column[scorer].astype("float64")
        facts: Iterable[tuple[bytes | None, ...]] = repeat((None, None, None), len(ids))
        if scorer == REWARD:
            states = text_arrays(column["state"].tolist(), bounds)
            worth = fixed_arrays(column["worth"].astype("float64"), bounds, "float8")
            facts = zip(states, worth, fixed_arrays(column["final"], bounds, "bool"), strict=True)
        arrays = fixed_arrays(values, bounds, "float8")
        rows = zip(ids, agents, _means(values, bounds), final, steps, arrays, facts, strict=True)
        for trajectory, agent, mean, done, numbers, scored, known in rows:
            yield (window, trajectory, agent, scorer, versions[scorer], mean, done, numbers, scored, *known)


def _by_trajectory(scores: pd.DataFrame) -> tuple[np.ndarray[Any, Any], list[int]]:
    """The order in which each trajectory's rows are together, and where each begins; the last bound is the end."""
    codes, _ = pd.factorize(scores["trajectory_id"])
    order = np.argsort(codes, kind="stable")
    return order, np.flatnonzero(np.diff(codes[order], prepend=-1, append=-2)).tolist()


def _means(values: np.ndarray[Any, Any], bounds: Sequence[int]) -> list[float | None]:
    """The mean of the known values between each two bounds; None without any."""
    known = ~np.isnan(values)
    counts = np.add.reduceat(known.astype("int64"), bounds[:-1])
    sums = np.add.reduceat(np.where(known, values, 0.0), bounds[:-1])
    return [total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)]


def read_scores(conn: Connection[Any], window: str) -> pd.DataFrame:
    """The scores of a window as `replace_scores` was given them, ordered by trajectory id, scorers by name.

    Returns:
        A row per step: window, trajectory_id, agent_id, step (int64), state, worth (float64), a float64 column per
        scorer, reward and final (bool). Empty, without scorers' columns, for a window that was not scored.
    """
    columns = ("trajectory_id", "agent_id", "scorer", *_ARRAYS)
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
