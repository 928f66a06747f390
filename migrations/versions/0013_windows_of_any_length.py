"""A window may begin at any minute: its length is a setting.

Revision: 0013
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

START = """
ALTER TABLE babylon_training.windows DROP CONSTRAINT windows_window_id_check;
ALTER TABLE babylon_training.windows ADD CONSTRAINT windows_window_id_check
    CHECK (window_id ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]$');
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(START)
