"""The markets and tickers that a trajectory's steps name: a window's fingerprint covers what became of them.

Revision: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTRUMENTS = """
ALTER TABLE babylon_training.raw_trajectories ADD COLUMN instruments text[] NOT NULL DEFAULT '{}'
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(INSTRUMENTS)
