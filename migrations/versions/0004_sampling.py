"""How an answer was sampled, beside its temperature and seed.

Revision: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SAMPLING = """
ALTER TABLE babylon_training.inference_calls ADD COLUMN sampling jsonb;
COMMENT ON COLUMN babylon_training.inference_calls.sampling IS
    'top_p, max_tokens, stop, choice (number of the answer among n) and model (the name asked for), where known'
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SAMPLING)
