"""A recorded call keeps the name of the key that asked, and when the gateway took the question.

Revision: 0015
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WHO_ASKED = """
ALTER TABLE babylon_training.inference_calls ADD COLUMN key_name text;
ALTER TABLE babylon_training.inference_calls ADD COLUMN received_at timestamptz;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(WHO_ASKED)
