"""The texts of a trajectory apart from its facts: scoring reads no text, and a dataset takes them over as they are.

Rows of before keep their body, which is read again from the game: `core.decoding.VERSION` has changed with this, so
that no fingerprint of before is that of now.

Revision: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXTS = """
ALTER TABLE babylon_training.raw_trajectories
    ADD COLUMN chat bytea NOT NULL DEFAULT '',
    ADD COLUMN chat_sha256 text NOT NULL DEFAULT '';
ALTER TABLE babylon_training.raw_trajectories ALTER COLUMN chat SET STORAGE EXTERNAL
"""

# Before, all of a dataset was in its body, texts included; such a one is read as it is.
CHATS = """
CREATE TABLE babylon_training.training_dataset_chats (
    dataset_id    text NOT NULL REFERENCES babylon_training.training_datasets (id) ON DELETE CASCADE,
    trajectory_id text NOT NULL,
    sha256        text NOT NULL,
    chat          bytea NOT NULL,
    PRIMARY KEY (dataset_id, trajectory_id)
);
ALTER TABLE babylon_training.training_dataset_chats ALTER COLUMN chat SET STORAGE EXTERNAL
"""


def upgrade() -> None:
    for statements in (TEXTS, CHATS):
        op.get_bind().exec_driver_sql(statements)
