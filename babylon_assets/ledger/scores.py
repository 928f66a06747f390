"""The table `trajectory_scores`: what each scorer gave each step of a window, one row per trajectory and scorer.

How scores are made is the business of `domain.rewards`. The weighted sum, the reward, is kept as a scorer of its own;
its row also holds what is known of each step's trade. Scores that changed are retired, not removed: every revision of a
window's scores can be read. A row belongs to the revisions from its own up to the one that retired it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from psycopg import Connection

from babylon_assets.domain.samples import StepScore
from babylon_assets.ledger.arrays import fixed_arrays, runs, text_arrays
from babylon_assets.ledger.database import window_lock
from babylon_assets.ledger.specification import TRAJECTORY_SCORES
from babylon_assets.ledger.table import json_value

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
    "reasoning",
    "metrics",
    "revision",
    "content_hash",
)
_ARRAYS = ("steps", "step_scores", "step_states", "step_worth", "step_final")
#: The version of scores that came with an imported trajectory: which scorer made them is not known here.
IMPORTED = "imported"


class ScorerNote(NamedTuple):
    """What a scorer said of a trajectory besides its numbers: a text for a person, and numbers for a machine."""

    reasoning: str | None
    metrics: dict[str, Any] | None


class Revision(NamedTuple):
    """One revision of a window's scores: of how many trajectories which scorers' rows came or went with it."""

    revision: int
    trajectories: int
    scorers: tuple[str, ...]
    made_at: datetime | None = None


def replace_scores(
    conn: Connection[Any],
    window: str,
    scores: pd.DataFrame,
    versions: Mapping[str, str],
    *,
    notes: Mapping[tuple[str, str], ScorerNote] | None = None,
    imported: Collection[str] = (),
) -> Revision:
    """Make these scores the window's current ones, in one transaction. Those that differ from before are kept, retired.

    Args:
        scores: as of `rewards.score_valued`, a row per step: window, trajectory_id, agent_id, step, state, worth, a
            float column per scorer, reward and final. NaN is "not known" and is stored as null, never as 0.
        versions: version by scorer; the reward's is made of all of them.
        notes: by (scorer, trajectory).
        imported: trajectories whose scores came with them; their version is `IMPORTED`.

    Returns:
        The revision that is current now, and what came or went with it: nothing when the scores are those of before.
    """
    complete = _complete_rows(window, scores, versions, notes or {}, imported)
    with conn.transaction():
        window_lock(conn, window)
        return _revise(conn, window, complete)


def are_current(
    conn: Connection[Any],
    window: str,
    scores: pd.DataFrame,
    versions: Mapping[str, str],
    *,
    imported: Collection[str] = (),
) -> bool:
    """Whether these scores are the window's current ones; nothing is written. Arguments as of `replace_scores`."""
    rows = _complete_rows(window, scores, versions, {}, imported)
    return _current_hashes(conn, window) == {key: _row_hash(row) for key, row in rows.items()}


def _complete_rows(
    window: str,
    scores: pd.DataFrame,
    versions: Mapping[str, str],
    notes: Mapping[tuple[str, str], ScorerNote],
    imported: Collection[str],
) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The rows of these scores by trajectory and scorer, the reward's own among them."""
    known = {**versions, REWARD: ",".join(f"{name}@{versions[name]}" for name in sorted(versions))}
    scorers = [name for name in scores.columns if name in known]
    rows = _rows(window, scores, scorers, known) if len(scores) else iter(())
    return {
        (row[1], row[3]): (*_of_its_version(row, imported), *notes.get((row[3], row[1]), ScorerNote(None, None)))
        for row in rows
    }


def _row_hash(row: tuple[Any, ...]) -> str:
    return sha256(msgspec.msgpack.encode(row)).hexdigest()


def _current_hashes(conn: Connection[Any], window: str) -> dict[tuple[str, str], str]:
    current = TRAJECTORY_SCORES.select("WHERE window_id = %s AND retired IS NULL", *_IDENTITY)
    return {(trajectory, scorer): seen for trajectory, scorer, seen in conn.execute(current, [window])}


def _revise(conn: Connection[Any], window: str, rows: Mapping[tuple[str, str], tuple[Any, ...]]) -> Revision:
    """Retire current rows that are not among these, and add those that are not current."""
    last = conn.execute(_LAST_REVISION, [window]).fetchone()
    assert last is not None  # an aggregate without GROUP BY
    before = _current_hashes(conn, window)
    hashes = {key: _row_hash(row) for key, row in rows.items()}
    gone = [key for key, seen in before.items() if hashes.get(key) != seen]
    fresh = [key for key, content in hashes.items() if before.get(key) != content]
    if not gone and not fresh:
        return Revision(last[0], 0, ())
    revision = last[0] + 1
    if gone:
        conn.execute(_RETIRE, [revision, window, [key[0] for key in gone], [key[1] for key in gone]])
    written = ((*_stored(rows[key]), revision, hashes[key]) for key in fresh)
    TRAJECTORY_SCORES.copy(conn, _WRITTEN, written, as_they_are=_ARRAYS)
    changed = {*gone, *fresh}
    return Revision(revision, len({key[0] for key in changed}), tuple(sorted({key[1] for key in changed})))


_AT_REVISION = "revision <= %s AND (retired IS NULL OR retired > %s)"
_IDENTITY = ("trajectory_id", "scorer", "content_hash")
_LAST_REVISION = """
    SELECT coalesce(max(greatest(revision, retired)), 0) FROM babylon_training.trajectory_scores WHERE window_id = %s"""
_RETIRE = """
    UPDATE babylon_training.trajectory_scores AS kept SET retired = %s, retired_at = now()
    FROM (SELECT %s::text AS window_id, * FROM unnest(%s::text[], %s::text[]) AS listed (trajectory_id, scorer)) AS gone
    WHERE kept.window_id = gone.window_id AND kept.trajectory_id = gone.trajectory_id AND kept.scorer = gone.scorer
      AND kept.retired IS NULL"""


def _of_its_version(row: tuple[Any, ...], imported: Collection[str]) -> tuple[Any, ...]:
    return (*row[:4], IMPORTED, *row[5:]) if row[1] in imported else row


def _stored(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:-1], json_value(row[-1]))


def _rows(
    window: str, scores: pd.DataFrame, scorers: Sequence[str], versions: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    """A row per scorer and trajectory, the trajectories in the order of their first step."""
    order, bounds = runs(scores["trajectory_id"].tolist())
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


def _means(values: np.ndarray[Any, Any], bounds: Sequence[int]) -> list[float | None]:
    """The mean of the known values between each two bounds; None without any."""
    known = ~np.isnan(values)
    counts = np.add.reduceat(known.astype("int64"), bounds[:-1])
    sums = np.add.reduceat(np.where(known, values, 0.0), bounds[:-1])
    return [total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)]


def revisions(conn: Connection[Any], window: str) -> list[Revision]:
    """Every revision of a window's scores that has rows of its own or retired some, oldest first."""
    query = """
        SELECT number, count(DISTINCT trajectory_id)::int, array_agg(DISTINCT scorer), max(made_at)
        FROM (SELECT revision AS number, trajectory_id, scorer, scored_at AS made_at
              FROM babylon_training.trajectory_scores WHERE window_id = %(window)s
              UNION ALL
              SELECT retired, trajectory_id, scorer, retired_at
              FROM babylon_training.trajectory_scores WHERE window_id = %(window)s AND retired IS NOT NULL) AS changes
        GROUP BY number ORDER BY number"""
    rows = conn.execute(query, {"window": window}).fetchall()
    return [Revision(number, many, tuple(scorers), made_at) for number, many, scorers, made_at in rows]


def read_scores(conn: Connection[Any], window: str, revision: int | None = None) -> pd.DataFrame:
    """The scores of a window as `replace_scores` was given them, ordered by trajectory id, scorers by name.

    Args:
        revision: an earlier one; None is the current one.

    Returns:
        A row per step: window, trajectory_id, agent_id, step (int64), state, worth (float64), a float64 column per
        scorer, reward and final (bool). Empty, without scorers' columns, for a window that was not scored.
    """
    columns = ("trajectory_id", "agent_id", "scorer", *_ARRAYS)
    at, given = ("retired IS NULL", []) if revision is None else (_AT_REVISION, [revision] * 2)
    query = TRAJECTORY_SCORES.select(
        f'WHERE window_id = %s AND {at} ORDER BY trajectory_id COLLATE "C", scorer', *columns
    )
    data: dict[str, list[Any]] = {name: [] for name in (*_KEYS, *_FACTS)}
    scorers: dict[str, list[Any]] = {}
    with conn.cursor(binary=True) as cursor:
        for trajectory, agent, scorer, steps, values, states, worth, final in cursor.execute(query, [window, *given]):
            scorers.setdefault(scorer, []).extend(values)
            if scorer == REWARD:
                for name, part in (("step", steps), ("state", states), ("worth", worth), ("final", final)):
                    data[name].extend(part)
                data["trajectory_id"].extend([trajectory] * len(steps))
                data["agent_id"].extend([agent] * len(steps))
    data["window"] = [window] * len(data["step"])
    return _frame(data, scorers)


def read_step_scores(conn: Connection[Any], window: str) -> dict[tuple[str, int], StepScore]:
    """The current scores of a window: `datasets.scores_by_step` of `read_scores`, in half the time."""
    columns = ("trajectory_id", "scorer", "steps", "step_scores", "step_states")
    query = TRAJECTORY_SCORES.select(
        'WHERE window_id = %s AND retired IS NULL ORDER BY trajectory_id COLLATE "C", scorer', *columns
    )
    scores: dict[tuple[str, int], StepScore] = {}
    with conn.cursor(binary=True) as cursor:
        for trajectory, rows in groupby(cursor.execute(query, [window]), key=itemgetter(0)):
            named = {scorer: given for _, scorer, *given in rows}
            steps, rewards, states = named.pop(REWARD)
            components = zip(*(values for _, values, _ in named.values()), strict=True) if named else repeat(())
            for step, reward, state, of_step in zip(steps, rewards, states, components, strict=False):
                scores[trajectory, step] = (reward, state, dict(zip(named, of_step, strict=True)))
    return scores


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
