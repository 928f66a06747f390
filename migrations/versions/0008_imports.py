"""Trajectories that came from a file, with the rewards that came with them.

Revision: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

IMPORTS = """
ALTER TABLE babylon_training.raw_trajectories ADD COLUMN given jsonb;
ALTER TABLE babylon_training.quarantined_trajectories ADD COLUMN imported boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN babylon_training.raw_trajectories.given IS 'what a file said of the rewards; null: read from the game'
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(IMPORTS)
