"""The tools that a call was offered, and what its answer asked of them.

Revision: 0018
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TOOLS = """
ALTER TABLE babylon_training.inference_calls ADD COLUMN tools bytea;
ALTER TABLE babylon_training.inference_calls ADD COLUMN tool_calls bytea NOT NULL DEFAULT '';
ALTER TABLE babylon_training.inference_calls ALTER COLUMN tools SET STORAGE EXTERNAL;
ALTER TABLE babylon_training.inference_calls ALTER COLUMN tool_calls SET STORAGE EXTERNAL;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TOOLS)
