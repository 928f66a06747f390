"""The served policy in the game, and going back from one that misbehaves there.

The record of every window says which policy gave which answer, whether it could be carried out, and what it earned.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.gates import Band, ServedResults, out_of_band
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.promotions import Promotion

AUTO = "auto-rollback"

_ANSWERS = """
SELECT count(*), coalesce(avg((scored.step_states[array_position(scored.steps, sample.step)] <> 'invalid')::int), 1),
       avg(sample.reward)
FROM babylon_training.windows AS played
JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
JOIN babylon_training.trajectory_scores AS scored
    ON scored.window_id = played.window_id AND scored.trajectory_id = sample.trajectory_id
WHERE scored.scorer = 'reward' AND scored.retired IS NULL AND sample.policy = %s
"""
_AGREEMENT = """
SELECT CASE WHEN count(step.score + step.worth) >= 16 THEN corr(step.score, step.worth) END
FROM babylon_training.trajectory_scores AS scored,
    unnest(scored.step_scores, scored.step_worth, scored.step_states) AS step (score, worth, state)
WHERE scored.window_id = %s AND scored.scorer = 'reward' AND scored.retired IS NULL AND step.state = 'final'
"""


def reward_agreement(conn: Connection[Any], window: str) -> float | None:
    """Correlation of a window's rewards with the worth of its trades; None where fewer than 16 are known, or all equal.

    The worth is what the trade came to, before scorers and weights make a reward of it.
    """
    row = conn.execute(_AGREEMENT, [window]).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def measure_served(conn: Connection[Any], checkpoint: Checkpoint) -> ServedResults:
    """How a checkpoint's policy did in all the windows that were read."""
    row = conn.execute(_ANSWERS, [policy_name(checkpoint.chain, checkpoint.step)]).fetchone()
    assert row is not None  # an aggregate
    return ServedResults(int(row[0]), float(row[1]), None if row[2] is None else float(row[2]))


def roll_back_if_needed(settings: Settings, database: Database, dagster_run_id: str | None = None) -> Promotion | None:
    """With AUTO_ROLLBACK, go back from a served policy that has left its band to the one before; None when all is well.

    A policy that was gone back to stays: going back twice in a row is for a person to decide.
    """
    if not settings.gate.auto_rollback:
        return None
    band = Band(valid_drop=settings.gate.auto_rollback_valid_drop, reward_drop=settings.gate.auto_rollback_reward_drop)
    with database.connect() as conn, conn.transaction():
        checkpoints.lock_line(conn, settings.model_name)
        history = promotions.history(conn, settings.model_name)
        served = promotions.promoted(conn, settings.model_name)
        if served is None or history[-1].kind != "promotion":
            return None
        earlier = checkpoints.get(conn, history[-1].from_id) if history[-1].from_id else None
        before = earlier or checkpoints.chain(conn, settings.model_name)[0]
        if before.id == served.id:
            return None
        why = out_of_band(measure_served(conn, served), measure_served(conn, before), band)
        if why is None:
            return None
        reason = f"{policy_name(served.chain, served.step)} left its band: {why}"
        return promotions.promote(conn, before, by=AUTO, why=reason, kind="rollback", dagster_run_id=dagster_run_id)
