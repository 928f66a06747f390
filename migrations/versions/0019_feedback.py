"""Judgments of answers that are sent to the gateway.

Revision: 0019
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

FEEDBACK = """
CREATE TABLE babylon_training.feedback (
    feedback_id text PRIMARY KEY,
    call_id text,
    agent_id text,
    at timestamptz,
    number float8,
    text text,
    key_name text,
    received_at timestamptz NOT NULL DEFAULT now(),
    CHECK (call_id IS NOT NULL OR (agent_id IS NOT NULL AND at IS NOT NULL)),
    CHECK (num_nonnulls(number, text) = 1)
);
CREATE INDEX feedback_call_idx ON babylon_training.feedback (call_id);
CREATE INDEX feedback_agent_idx ON babylon_training.feedback (agent_id, at);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(FEEDBACK)
