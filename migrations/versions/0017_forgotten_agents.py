"""Agents that were forgotten, by the hash of their id: what the record holds of them from before is not read again.

Revision: 0017
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "CREATE TABLE babylon_training.forgotten_agents "
        "(agent_sha256 text PRIMARY KEY, forgotten_at timestamptz NOT NULL DEFAULT now())"
    )
