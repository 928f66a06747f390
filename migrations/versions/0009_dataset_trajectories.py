"""A row per trajectory of a dataset, with its samples as arrays; its texts are kept once, by the window that has them.

A row per sample was 24,000 rows in three indexes for a window of 2,000 trajectories: most of what writing a dataset
cost. `training_dataset_samples` still shows them, as a view. A trigger sees to the texts: rows of a window that are
deleted, to be read again or for good, first leave their texts to the datasets that refer to them.

Revision: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The hash is null where the dataset is of the form that has all texts in its body, or was emptied.
TRAJECTORIES = """
CREATE TABLE babylon_training.training_dataset_trajectories (
    dataset_id    text NOT NULL REFERENCES babylon_training.training_datasets (id) ON DELETE CASCADE,
    trajectory_id text NOT NULL,
    agent_id      text NOT NULL,
    chat_sha256   text,
    chat          bytea,
    steps         integer[] NOT NULL,
    calls         integer[] NOT NULL,
    group_keys    text[] NOT NULL,
    policies      text[] NOT NULL,
    rewards       double precision[] NOT NULL,
    advantages    double precision[] NOT NULL,
    trains_as     text[] NOT NULL CHECK (trains_as <@ ARRAY['policy_gradient', 'recompute', 'imitate', 'skip']),
    skip_reasons  text[] NOT NULL,
    tokens        integer[] NOT NULL,
    PRIMARY KEY (dataset_id, trajectory_id)
);
ALTER TABLE babylon_training.training_dataset_trajectories ALTER COLUMN chat SET STORAGE EXTERNAL;
CREATE INDEX training_dataset_trajectories_trajectory
    ON babylon_training.training_dataset_trajectories (trajectory_id);
CREATE INDEX training_dataset_trajectories_agent ON babylon_training.training_dataset_trajectories (agent_id)
"""

# Texts that were copied are given back where the window still has them.
TAKEN_OVER = """
INSERT INTO babylon_training.training_dataset_trajectories
SELECT sample.dataset_id, sample.trajectory_id, min(sample.agent_id), min(said.sha256), NULL,
       array_agg(step ORDER BY step, call), array_agg(call ORDER BY step, call),
       array_agg(group_key ORDER BY step, call), array_agg(policy ORDER BY step, call),
       array_agg(reward ORDER BY step, call), array_agg(advantage ORDER BY step, call),
       array_agg(trains_as ORDER BY step, call), array_agg(skip_reason ORDER BY step, call),
       array_agg(tokens ORDER BY step, call)
FROM babylon_training.training_dataset_samples AS sample
LEFT JOIN babylon_training.training_dataset_chats AS said USING (dataset_id, trajectory_id)
GROUP BY sample.dataset_id, sample.trajectory_id;

UPDATE babylon_training.training_dataset_trajectories AS kept SET chat = said.chat
FROM babylon_training.training_dataset_chats AS said
JOIN babylon_training.training_datasets AS dataset ON dataset.id = said.dataset_id
WHERE kept.dataset_id = said.dataset_id AND kept.trajectory_id = said.trajectory_id AND NOT EXISTS (
    SELECT FROM babylon_training.raw_trajectories AS raw WHERE raw.window_id = dataset.window_id
    AND raw.trajectory_id = said.trajectory_id AND raw.chat_sha256 = said.sha256);

DROP TABLE babylon_training.training_dataset_chats;
DROP TABLE babylon_training.training_dataset_samples
"""

SAMPLES = """
CREATE VIEW babylon_training.training_dataset_samples AS
SELECT kept.dataset_id, concat_ws('/', kept.trajectory_id, one.step, one.call) AS sample_id, kept.trajectory_id,
       kept.agent_id, one.step, one.call, one.group_key, one.policy, one.reward, one.advantage, one.trains_as,
       one.skip_reason, one.tokens
FROM babylon_training.training_dataset_trajectories AS kept
CROSS JOIN LATERAL unnest(kept.steps, kept.calls, kept.group_keys, kept.policies, kept.rewards, kept.advantages,
                          kept.trains_as, kept.skip_reasons, kept.tokens)
    AS one (step, call, group_key, policy, reward, advantage, trains_as, skip_reason, tokens)
"""

TEXTS_STAY = """
CREATE FUNCTION babylon_training.leave_texts_to_datasets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE babylon_training.training_dataset_trajectories AS kept SET chat = gone.chat
    FROM gone JOIN babylon_training.training_datasets AS dataset ON dataset.window_id = gone.window_id
    WHERE kept.dataset_id = dataset.id AND kept.trajectory_id = gone.trajectory_id
      AND kept.chat_sha256 = gone.chat_sha256 AND kept.chat IS NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER texts_stay AFTER DELETE ON babylon_training.raw_trajectories
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION babylon_training.leave_texts_to_datasets()
"""


def upgrade() -> None:
    for statements in (TRAJECTORIES, TAKEN_OVER, SAMPLES, TEXTS_STAY):
        op.get_bind().exec_driver_sql(statements)
