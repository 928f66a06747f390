"""Dead ends and verdicts: a refused checkpoint stays in its chain, and the chain goes on from its parent.

Revision: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A parent may have many refused children and one that the chain goes on from.
DEAD_ENDS = """
ALTER TABLE babylon_training.model_checkpoints ADD COLUMN dead_end text;
COMMENT ON COLUMN babylon_training.model_checkpoints.dead_end IS
    'why the chain does not go on from it: refused, or rolled back; null on the line';
DROP INDEX babylon_training.model_checkpoints_parent;
CREATE UNIQUE INDEX model_checkpoints_parent ON babylon_training.model_checkpoints (chain, coalesce(parent_id, ''))
    WHERE dead_end IS NULL
"""

VERDICTS = """
CREATE TABLE babylon_training.gate_verdicts (
    checkpoint_id  text PRIMARY KEY REFERENCES babylon_training.model_checkpoints (id),
    chain          text NOT NULL,
    champion_id    text REFERENCES babylon_training.model_checkpoints (id),
    passed         boolean NOT NULL,
    why            text NOT NULL,
    verdict        jsonb NOT NULL,
    dagster_run_id text,
    judged_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER gate_verdicts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON babylon_training.gate_verdicts
    FOR EACH STATEMENT EXECUTE FUNCTION babylon_training.refuse_change()
"""


def upgrade() -> None:
    for statements in (DEAD_ENDS, VERDICTS):
        op.get_bind().exec_driver_sql(statements)
