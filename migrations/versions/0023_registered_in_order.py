"""A page of the register of checkpoints, and whether a checkpoint was ever promoted, are read by an index.

Revision: 0023
"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

INDEXES = """
CREATE INDEX model_checkpoints_newest ON babylon_training.model_checkpoints (created_at DESC, chain, step DESC);
CREATE INDEX promotions_to ON babylon_training.promotions (to_id);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(INDEXES)
