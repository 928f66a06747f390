"""What each sample of a dataset is compared with, as the key of its group names it.

Revision: 0021
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

SAMPLES = """
CREATE OR REPLACE VIEW babylon_training.training_dataset_samples AS
SELECT kept.dataset_id, concat_ws('/', kept.trajectory_id, one.step, one.call) AS sample_id, kept.trajectory_id,
       kept.agent_id, one.step, one.call, one.group_key, one.policy, one.reward, one.advantage, one.trains_as,
       one.skip_reason, one.tokens,
       CASE split_part(one.group_key, '/', 2) WHEN '~minutes' THEN 'minutes' WHEN '~class' THEN 'class'
            WHEN '~earlier' THEN 'running_mean' ELSE 'decision_point' END AS compared_with
FROM babylon_training.training_dataset_trajectories AS kept
CROSS JOIN LATERAL unnest(kept.steps, kept.calls, kept.group_keys, kept.policies, kept.rewards, kept.advantages,
                          kept.trains_as, kept.skip_reasons, kept.tokens)
    AS one (step, call, group_key, policy, reward, advantage, trains_as, skip_reason, tokens)
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SAMPLES)
