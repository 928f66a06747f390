"""A window's texts are kept once: a dataset refers to them, and has its own only where the window's are gone.

What sees to it is a trigger: rows of a window that are deleted, to be read again or for good, first leave their texts to
the datasets that refer to them. Forgetting an agent empties its datasets before, so that nothing is left to them.

Revision: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BY_REFERENCE = """
ALTER TABLE babylon_training.training_dataset_chats ALTER COLUMN chat DROP NOT NULL;

CREATE FUNCTION babylon_training.leave_texts_to_datasets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE babylon_training.training_dataset_chats AS kept SET chat = gone.chat
    FROM gone JOIN babylon_training.training_datasets AS dataset ON dataset.window_id = gone.window_id
    WHERE kept.dataset_id = dataset.id AND kept.trajectory_id = gone.trajectory_id
      AND kept.sha256 = gone.chat_sha256 AND kept.chat IS NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER texts_stay AFTER DELETE ON babylon_training.raw_trajectories
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION babylon_training.leave_texts_to_datasets()
"""

# The texts of before, which were copied, are given back where the window still has them.
NOT_TWICE = """
UPDATE babylon_training.training_dataset_chats AS kept SET chat = NULL
FROM babylon_training.training_datasets AS dataset
JOIN babylon_training.raw_trajectories AS raw ON raw.window_id = dataset.window_id
WHERE kept.dataset_id = dataset.id AND kept.trajectory_id = raw.trajectory_id AND kept.sha256 = raw.chat_sha256
"""


def upgrade() -> None:
    for statements in (BY_REFERENCE, NOT_TWICE):
        op.get_bind().exec_driver_sql(statements)
