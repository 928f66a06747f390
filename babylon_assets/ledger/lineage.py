"""Questions to the ledger across checkpoints: where one comes from, what saw a trajectory, what must be kept.

Backward is along `parent_id` to the root; forward is from the datasets that hold a trajectory to the checkpoints
trained on them, and on to everything trained from those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import BRANCH, complete_name, main_chain, policy_name
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.forgotten_agents import note_forgotten, wait_for_writers
from babylon_assets.ledger.specification import MODEL_CHECKPOINTS

# Rows of our own tables that hold what an agent did, besides the datasets.
_OF_AGENT: dict[str, LiteralString] = {
    "feedback": "DELETE FROM babylon_training.feedback WHERE agent_id = %(agent)s OR call_id = ANY(%(joined)s) "
    "OR call_id IN (SELECT call_id FROM babylon_training.inference_calls WHERE agent_id = %(agent)s)",
    "trajectories": "DELETE FROM babylon_training.raw_trajectories WHERE agent_id = %(agent)s",
    "calls": "DELETE FROM babylon_training.inference_calls WHERE agent_id = %(agent)s OR trajectory_id IN "
    "(SELECT trajectory_id FROM babylon_training.raw_trajectories WHERE agent_id = %(agent)s) "
    "OR call_id = ANY(%(joined)s)",
    "scores": "DELETE FROM babylon_training.trajectory_scores WHERE agent_id = %(agent)s",
    "samples": "WITH gone AS (DELETE FROM babylon_training.training_dataset_trajectories WHERE agent_id = %(agent)s "
    "RETURNING steps) SELECT unnest(steps) FROM gone",
    "judgments": "DELETE FROM babylon_training.ruler_judgments WHERE %(agent)s = ANY(agents)",
    "answers": """
        UPDATE babylon_training.checkpoint_evaluations SET results = results || jsonb_build_object(
            'answers', (SELECT coalesce(jsonb_object_agg(key, value) FILTER (WHERE value->>0 <> %(agent)s), '{}')
                        FROM jsonb_each(results->'answers')),
            'texts', (SELECT coalesce(jsonb_object_agg(key, value)
                                      FILTER (WHERE results->'answers'->key->>0 IS DISTINCT FROM %(agent)s), '{}')
                      FROM jsonb_each(coalesce(results->'texts', '{}'))))
        WHERE evaluation = 'recorded_prompts'
            AND EXISTS (SELECT FROM jsonb_each(results->'answers') WHERE value->>0 = %(agent)s)""",
    "late_samples": "DELETE FROM babylon_training.late_samples WHERE agent_id = %(agent)s OR checkpoint_id IS NULL AND "
    "dataset_id IN (SELECT id FROM babylon_training.training_datasets WHERE body = '')",
}
_EMPTY_DATASETS: LiteralString = """
WITH theirs AS (
    SELECT DISTINCT dataset_id FROM babylon_training.training_dataset_trajectories WHERE agent_id = %(agent)s),
texts AS (
    UPDATE babylon_training.training_dataset_trajectories SET chat = NULL, chat_sha256 = NULL
    WHERE dataset_id IN (SELECT dataset_id FROM theirs))
UPDATE babylon_training.training_datasets SET body = '' WHERE id IN (SELECT dataset_id FROM theirs)"""
_HOURS: LiteralString = """
SELECT window_id FROM babylon_training.raw_trajectories WHERE agent_id = %(agent)s UNION
SELECT made.window_id FROM babylon_training.training_dataset_trajectories AS held
JOIN babylon_training.training_datasets AS made ON made.id = held.dataset_id WHERE held.agent_id = %(agent)s
ORDER BY 1"""
_SAY_FORGOTTEN: LiteralString = """
UPDATE babylon_training.windows SET reason = %(reason)s, changed_at = now()
WHERE status IN ('ready', 'trained', 'skipped') AND dataset_id IN (
    SELECT dataset_id FROM babylon_training.training_dataset_trajectories WHERE agent_id = %(agent)s)"""
_LINE: LiteralString = """
JOIN (WITH RECURSIVE line (id, distance) AS (
        SELECT %s::text, 1 UNION ALL
        SELECT made.parent_id, line.distance + 1
        FROM line JOIN babylon_training.model_checkpoints AS made USING (id) WHERE made.parent_id IS NOT NULL)
    SELECT * FROM line) AS line USING (id)
ORDER BY distance"""
#: What the report and the list of windows say of a window until it is run again.
FORGOTTEN = "an agent of it was forgotten; run the window again to freeze it without the agent"


def find(conn: Connection[Any], name: str, chain: str) -> Checkpoint:
    """The checkpoint that a person means: a policy such as `babylon-agent@3`, `@3` or `base`, or the start of an id.

    Args:
        chain: whose `@3` and `base` are meant; `base` is its step 0.

    Raises:
        PermanentError: there is none, or more than one.
    """
    named, _, step = complete_name(name, chain).rpartition("@")
    if named and step.isdecimal():
        matches = _all(conn, "WHERE chain = %s AND step = %s", named, int(step))
    else:
        matches = _all(conn, "WHERE starts_with(id, %s) ORDER BY chain, step LIMIT 2", name)
    if len(matches) != 1:
        many = "more than one checkpoint" if matches else "no checkpoint"
        raise PermanentError(f"{name!r} names {many}; `babylon chains` lists them")
    return matches[0]


def all_checkpoints(conn: Connection[Any]) -> list[Checkpoint]:
    """Every checkpoint of every chain, ordered by chain and step."""
    return _all(conn, "ORDER BY chain, step")


def ancestors(conn: Connection[Any], checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoints that it was trained from, its parent first, the root last."""
    return _all(conn, _LINE, checkpoint.parent_id)


def policies_that_saw(
    conn: Connection[Any], *, trajectory: str | None = None, agent: str | None = None
) -> dict[str, str]:
    """Which policies have seen a trajectory or an agent: `trained on it`, or `trained from <policy>` that had."""
    rows = conn.execute(
        """
        SELECT DISTINCT made.id FROM babylon_training.training_dataset_samples AS sample
        JOIN babylon_training.model_checkpoints AS made USING (dataset_id)
        WHERE sample.trains_as <> 'skip' AND (sample.trajectory_id = %s OR sample.agent_id = %s)
        """,
        [trajectory, agent],
    ).fetchall()
    direct = {row[0] for row in rows}
    by_step = sorted(all_checkpoints(conn), key=lambda checkpoint: checkpoint.step)
    names = {checkpoint.id: policy_name(checkpoint.chain, checkpoint.step) for checkpoint in by_step}
    seen: dict[str, str] = {}
    for checkpoint in by_step:
        if checkpoint.id in direct:
            seen[names[checkpoint.id]] = "trained on it"
        elif checkpoint.parent_id is not None and names[checkpoint.parent_id] in seen:
            seen[names[checkpoint.id]] = f"trained from {names[checkpoint.parent_id]}"
    return seen


def knows_trajectory(conn: Connection[Any], trajectory: str) -> bool:
    """Whether a trajectory was ever read, put into quarantine or frozen in a dataset."""
    row = conn.execute(
        """
        SELECT EXISTS (SELECT FROM babylon_training.raw_trajectories WHERE trajectory_id = %(id)s)
            OR EXISTS (SELECT FROM babylon_training.quarantined_trajectories WHERE trajectory_id = %(id)s)
            OR EXISTS (SELECT FROM babylon_training.training_dataset_samples WHERE trajectory_id = %(id)s)""",
        {"id": trajectory},
    ).fetchone()
    return row is not None and bool(row[0])


def trained_trajectories(conn: Connection[Any], checkpoint: Checkpoint) -> dict[str, int]:
    """How many samples of each trajectory the checkpoint's dataset has for training."""
    rows = conn.execute(
        "SELECT trajectory_id, count(*) FROM babylon_training.training_dataset_samples "
        "WHERE dataset_id = %s AND trains_as <> 'skip' GROUP BY trajectory_id ORDER BY trajectory_id",
        [checkpoint.dataset_id],
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def windows_of(conn: Connection[Any], checkpoint: Checkpoint) -> dict[str, int]:
    """How many late samples of which earlier windows the checkpoint was trained on, besides its own window's."""
    rows = conn.execute(
        "SELECT window_id, count(*)::int FROM babylon_training.late_samples WHERE checkpoint_id = %s "
        "GROUP BY window_id ORDER BY window_id",
        [checkpoint.id],
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def scorers(conn: Connection[Any], checkpoint: Checkpoint) -> list[str]:
    """The scorers of the windows that the checkpoint was trained on, when its dataset was made, such as `outcome@1`.

    A branch that was scored for itself says in its settings by which scorers.
    """
    if "reward_weights" in checkpoint.settings:
        return sorted(checkpoint.settings["reward_weights"])
    rows = conn.execute(
        "SELECT DISTINCT scorer || '@' || scorer_version AS named FROM babylon_training.trajectory_scores AS score "
        "JOIN babylon_training.training_datasets AS made ON made.id = %s "
        "WHERE score.window_id = ANY(ARRAY(SELECT %s UNION "
        "SELECT window_id FROM babylon_training.late_samples WHERE checkpoint_id = %s)) "
        "AND scored_at <= made.created_at AND (retired_at IS NULL OR retired_at > made.created_at) ORDER BY named",
        [checkpoint.dataset_id, checkpoint.window_id, checkpoint.id],
    ).fetchall()
    return [row[0] for row in rows]


def windows_with(conn: Connection[Any], agent: str) -> list[str]:
    """The windows that our tables hold something of an agent in, oldest first; a sample that was carried counts too."""
    return [row[0] for row in conn.execute(_HOURS, {"agent": agent}).fetchall()]


def forget_agent(conn: Connection[Any], agent: str) -> dict[str, int]:
    """Remove what an agent did from our tables, in the caller's transaction or in one of its own; says how many rows.

    A dataset that holds an answer of the agent is emptied: it cannot be trained on or reproduced any more, and its id
    stays as what checkpoints were made from. What policies answered to its prompts is removed from their evaluations,
    whose means stay. Its window says so, and is frozen again without the agent when it is run again.
    """
    with conn.transaction():
        wait_for_writers(conn)
        note_forgotten(conn, agent)
        given = {"agent": agent, "joined": _joined_calls(conn, agent)}
        emptied = conn.execute(_EMPTY_DATASETS, given).rowcount
        conn.execute(_SAY_FORGOTTEN, {"agent": agent, "reason": FORGOTTEN})
        # Calls are found by the trajectories. These leave their texts to datasets that refer to them: none does by now.
        order = ("feedback", "calls", "samples", "trajectories", "scores", "judgments", "answers", "late_samples")
        removed = {name: conn.execute(_OF_AGENT[name], given).rowcount for name in order}
    return {**removed, "datasets": emptied}


def _joined_calls(conn: Connection[Any], agent: str) -> list[str]:
    """The calls that belong to an agent's trajectories, those included that say nothing of their caller."""
    from babylon_assets.domain.joining import join_calls, named_calls
    from babylon_assets.ledger.inference_calls import calls_of
    from babylon_assets.ledger.trajectories import read_heads

    query = "SELECT DISTINCT window_id FROM babylon_training.raw_trajectories WHERE agent_id = %s"
    windows = [window for (window,) in conn.execute(query, [agent]).fetchall()]
    names: list[str] = []
    for window in windows:
        records = read_heads(conn, window)
        calls = calls_of(conn, window, named_calls(records))
        theirs = {id(sample.call) for sample in join_calls(records, calls).samples if sample.record.agent_id == agent}
        names += [name for name, call in calls.items() if id(call) in theirs]
    return names


def policy_lags(conn: Connection[Any], parent: Checkpoint, policies: Iterable[str]) -> dict[str, int]:
    """How many checkpoints each of some policies is from the checkpoint that is trained from, along the tree.

    Of a policy on the parent's own line that is how far it is behind. One on another branch is as far as the way to
    where the lines part, and from there to it. Policies that the ledger does not know are left out.
    """
    rows = conn.execute(
        "SELECT id, parent_id, chain, step FROM babylon_training.model_checkpoints WHERE split_part(chain, %s, 1) = %s",
        [BRANCH, main_chain(parent.chain)],
    ).fetchall()
    parents = {row[0]: row[1] for row in rows}
    ids = {policy_name(row[2], row[3]): row[0] for row in rows}
    behind = {ancestor: steps for steps, ancestor in enumerate(_upward(parents, parent.id))}
    lags: dict[str, int] = {}
    for name in set(policies) & ids.keys():
        way = enumerate(_upward(parents, ids[name]))
        lags[name] = next(steps + behind[ancestor] for steps, ancestor in way if ancestor in behind)
    return lags


def _upward(parents: Mapping[str, str | None], checkpoint_id: str) -> Iterator[str]:
    """A checkpoint's id, its parent's, and so on to the root's."""
    current: str | None = checkpoint_id
    while current is not None:
        yield current
        current = parents[current]


def prunable(conn: Connection[Any], chain: str, keep: int) -> list[Checkpoint]:
    """Checkpoints of a chain and of its branches whose weights nothing needs, oldest first.

    Needed are the newest `keep` of the chain's line, as many of its rejected ones and of its branches, what is served
    and what was served before it, the best of an evaluation, what an attempt that has not ended trains from, and the
    parents of all of these.
    """
    family = sorted(checkpoints.family(conn, chain), key=lambda checkpoint: (checkpoint.step, checkpoint.created_at))
    line = [checkpoint for checkpoint in family if checkpoint.chain == chain and checkpoint.rejected is None]
    rejected = [checkpoint for checkpoint in family if checkpoint.chain == chain and checkpoint.rejected is not None]
    branches = sorted(
        (checkpoint for checkpoint in family if checkpoint.chain != chain), key=lambda checkpoint: checkpoint.created_at
    )
    needed = {checkpoint.id for part in (line, rejected, branches) for checkpoint in part[-max(1, keep) :]}
    needed.update(
        row[0]
        for row in conn.execute(
            """
            SELECT unnest(ARRAY[to_id, from_id]) FROM babylon_training.promotions
                WHERE id IN (SELECT max(id) FROM babylon_training.promotions GROUP BY chain)
            UNION SELECT parent_id FROM babylon_training.training_jobs
                WHERE state IN ('prepared', 'submitted', 'training')
            UNION (SELECT DISTINCT ON (evaluation, version) checkpoint_id
                FROM babylon_training.checkpoint_evaluations
                WHERE value IS NOT NULL AND window_id IS NULL AND checkpoint_id = ANY(%s)
                ORDER BY evaluation, version, value DESC)
            """,
            [[checkpoint.id for checkpoint in family]],
        )
    )
    needed.update(
        [checkpoint.parent_id for checkpoint in family if checkpoint.id in needed and checkpoint.parent_id is not None]
    )
    return [checkpoint for checkpoint in family if checkpoint.id not in needed and checkpoint.path]


def note_pruned(conn: Connection[Any], checkpoint_id: str) -> None:
    """Note that a checkpoint's weights are gone; the row, and all that it says of where it comes from, stays."""
    with conn.transaction():
        conn.execute("UPDATE babylon_training.model_checkpoints SET path = '' WHERE id = %s", [checkpoint_id])


def _all(conn: Connection[Any], rest: str, *parameters: Any) -> list[Checkpoint]:
    with conn.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(MODEL_CHECKPOINTS.select(rest), parameters).fetchall()
