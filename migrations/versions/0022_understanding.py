"""What was understood of a window, as counts, and which of its rows were left out.

Revision: 0022
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE babylon_training.windows ADD COLUMN understanding jsonb")
