"""A window's trainable tokens are those of its dataset, whatever became of it; a checkpoint's are its trained tokens.

Both were kept as `trainable_tokens`, and a window's changed its meaning once it was trained.

Revision: 0024
"""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

WINDOWS = """
UPDATE babylon_training.windows AS hour SET trainable_tokens = made.trainable_tokens
FROM babylon_training.training_datasets AS made
WHERE made.id = hour.dataset_id AND made.trainable_tokens <> hour.trainable_tokens;
"""
CHECKPOINTS = """
UPDATE babylon_training.model_checkpoints
SET metrics = (metrics - 'trainable_tokens') || jsonb_build_object('trained_tokens', metrics->'trainable_tokens')
WHERE jsonb_exists(metrics, 'trainable_tokens');
"""


def upgrade() -> None:
    for statement in (WINDOWS, CHECKPOINTS):
        op.get_bind().exec_driver_sql(statement)
