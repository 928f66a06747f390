"""Scores that changed are kept beside the new ones; what a judge was paid for is kept; rows may come from a file.

Scores of before have no hash: they are kept as the first revision when their window is scored again.

Revision: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

REVISIONS = """
ALTER TABLE babylon_training.trajectory_scores
    ADD COLUMN revision integer NOT NULL DEFAULT 1,
    ADD COLUMN retired integer,
    ADD COLUMN retired_at timestamptz,
    ADD COLUMN content_hash text NOT NULL DEFAULT '',
    ADD CHECK (retired > revision),
    DROP CONSTRAINT trajectory_scores_pkey,
    ADD PRIMARY KEY (window_id, trajectory_id, scorer, scorer_version, revision);
CREATE UNIQUE INDEX trajectory_scores_current ON babylon_training.trajectory_scores (window_id, trajectory_id, scorer)
    WHERE retired IS NULL;
COMMENT ON COLUMN babylon_training.trajectory_scores.retired IS 'first revision without this row; null: it is current';

CREATE OR REPLACE VIEW babylon_training.ruler_scores AS
SELECT window_id, agent_id, trajectory_id, score, reasoning,
       scorer || '@' || scorer_version AS scoring_method, metrics
FROM babylon_training.trajectory_scores
WHERE score IS NOT NULL AND retired IS NULL
"""

JUDGMENTS = """
CREATE TABLE babylon_training.ruler_judgments (
    id                text PRIMARY KEY,
    window_id         text NOT NULL,
    group_key         text NOT NULL,
    model             text NOT NULL,
    samples           text[] NOT NULL,
    agents            text[] NOT NULL,
    scores            double precision[],
    explanations      text[],
    attempts          integer NOT NULL CHECK (attempts > 0),
    error             text,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cost_usd          double precision,
    judged_at         timestamptz NOT NULL DEFAULT now(),
    CHECK ((scores IS NULL) = (error IS NOT NULL)),
    CHECK (cardinality(scores) = cardinality(samples) AND cardinality(explanations) = cardinality(samples))
);
CREATE INDEX ruler_judgments_window ON babylon_training.ruler_judgments (window_id);
COMMENT ON COLUMN babylon_training.ruler_judgments.attempts IS 'requests so far; tokens and cost are of all of them'
"""


def upgrade() -> None:
    for statements in (REVISIONS, JUDGMENTS):
        op.get_bind().exec_driver_sql(statements)
