"""A checkpoint that was refused or rolled back is `rejected`; answers scored under a policy are `off_policy`.

Revision: 0014
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename("dead_end", "rejected", "replay", "off_policy")


def downgrade() -> None:
    _rename("rejected", "dead_end", "off_policy", "replay")


def _rename(column: str, to_column: str, evaluation: str, to_evaluation: str) -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(
        f"ALTER TABLE babylon_training.model_checkpoints RENAME COLUMN {column} TO {to_column};"
        f"UPDATE babylon_training.checkpoint_evaluations SET evaluation = '{to_evaluation}'"
        f" WHERE evaluation = '{evaluation}'"
    )
