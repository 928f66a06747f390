"""A trajectory keeps what the record says of its agent, and how much of what could not be read in it.

Revision: 0016
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "ALTER TABLE babylon_training.raw_trajectories ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}', "
        "ADD COLUMN dropped jsonb NOT NULL DEFAULT '{}'"
    )
