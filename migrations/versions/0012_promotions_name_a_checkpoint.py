"""Every promotion names the checkpoint that is served from then on. The program always wrote it; now the table asks."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Require the checkpoint."""
    op.get_bind().exec_driver_sql("ALTER TABLE babylon_training.promotions ALTER COLUMN to_id SET NOT NULL")


def downgrade() -> None:
    """Require it no more."""
    op.get_bind().exec_driver_sql("ALTER TABLE babylon_training.promotions ALTER COLUMN to_id DROP NOT NULL")
