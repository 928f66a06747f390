"""How much of a window was understood, and the words that were not, as its row has them.

Revision: 0020
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "ALTER TABLE babylon_training.windows ADD COLUMN understood float8, ADD COLUMN unknown_words text"
    )
