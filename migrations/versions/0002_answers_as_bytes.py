"""Answers as bytes: a policy can sample the character NUL, which PostgreSQL's text cannot hold.

Revision: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

RESPONSE = """
ALTER TABLE babylon_training.inference_calls
    ALTER COLUMN response TYPE bytea USING convert_to(response, 'UTF8');
COMMENT ON COLUMN babylon_training.inference_calls.response IS 'UTF-8; read it with convert_from(response, ''UTF8'')'
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(RESPONSE)
