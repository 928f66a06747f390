"""The training mode `imitate` is called `sft`, as everywhere else. A dataset's content, which its id names, stays."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_CHECK = "training_dataset_trajectories_trains_as_check"


def upgrade() -> None:
    """Rename the mode in what is counted and listed of datasets."""
    _rename("imitate", "sft")


def downgrade() -> None:
    """Back to the old word."""
    _rename("sft", "imitate")


def _rename(old: str, new: str) -> None:
    run = op.get_bind().exec_driver_sql
    run(f"ALTER TABLE babylon_training.training_dataset_trajectories DROP CONSTRAINT {_CHECK}")
    run(
        "UPDATE babylon_training.training_dataset_trajectories "
        f"SET trains_as = array_replace(trains_as, '{old}', '{new}') WHERE '{old}' = ANY(trains_as)"
    )
    run(
        f"ALTER TABLE babylon_training.training_dataset_trajectories ADD CONSTRAINT {_CHECK} "
        f"CHECK (trains_as <@ ARRAY['policy_gradient', 'recompute', '{new}', 'skip'])"
    )
    run(
        "UPDATE babylon_training.training_datasets "
        f"SET counts = (counts - '{old}') || jsonb_build_object('{new}', counts -> '{old}') WHERE counts ? '{old}'"
    )
