"""Samples whose window was trained before they came, and the window that took them.

Revision: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# One row is one thing to learn: it has one taker, and one checkpoint at most.
LATE = """
CREATE TABLE babylon_training.late_samples (
    chain         text NOT NULL,
    window_id     text NOT NULL,
    sample_id     text NOT NULL,
    text_sha256   text NOT NULL,
    reward        double precision NOT NULL,
    agent_id      text NOT NULL,
    dataset_id    text NOT NULL REFERENCES babylon_training.training_datasets (id) ON DELETE CASCADE,
    into_window   text,
    checkpoint_id text REFERENCES babylon_training.model_checkpoints (id),
    noted_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain, window_id, sample_id, text_sha256, reward),
    CHECK (checkpoint_id IS NULL OR into_window IS NOT NULL)
);
CREATE INDEX late_samples_open ON babylon_training.late_samples (chain) WHERE checkpoint_id IS NULL;
CREATE INDEX late_samples_into ON babylon_training.late_samples (into_window);
COMMENT ON TABLE babylon_training.late_samples IS
    'samples that came, or changed, after their window was trained, and which window''s dataset took them'
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(LATE)
