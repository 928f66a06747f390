"""An agent's windows, newest first, and the children of a checkpoint are read by an index, however many there are.

Revision: 0025
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

INDEXES = """
CREATE INDEX trajectory_scores_agent_window ON babylon_training.trajectory_scores (agent_id, window_id);
DROP INDEX babylon_training.trajectory_scores_agent;
CREATE INDEX model_checkpoints_children ON babylon_training.model_checkpoints (parent_id);
CREATE INDEX training_dataset_trajectories_agent_dataset
    ON babylon_training.training_dataset_trajectories (agent_id, dataset_id);
DROP INDEX babylon_training.training_dataset_trajectories_agent;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(INDEXES)
