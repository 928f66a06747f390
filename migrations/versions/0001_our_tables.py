"""Our tables: what was read, what was answered, how it scored, what was trained on it, and what became of that.

Revision: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WINDOWS = """
CREATE TABLE babylon_training.windows (
    window_id        text PRIMARY KEY
                     CHECK (window_id ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00$'),
    status           text NOT NULL DEFAULT 'open'
                     CHECK (status IN ('open', 'thin', 'ready', 'trained', 'skipped', 'failed')),
    fingerprint      text,
    trajectories     integer NOT NULL DEFAULT 0 CHECK (trajectories >= 0),
    agents           integer NOT NULL DEFAULT 0 CHECK (agents >= 0),
    samples          integer NOT NULL DEFAULT 0 CHECK (samples >= 0),
    trainable_tokens bigint NOT NULL DEFAULT 0 CHECK (trainable_tokens >= 0),
    reward_mean      double precision,
    reward_std       double precision,
    dataset_id       text,
    checkpoint_id    text,
    parent_id        text,
    reference        jsonb,
    reason           text,
    changed_at       timestamptz NOT NULL DEFAULT now()
)
"""

TRAJECTORIES = """
CREATE TABLE babylon_training.raw_trajectories (
    window_id     text NOT NULL,
    trajectory_id text NOT NULL,
    agent_id      text NOT NULL,
    scenario_id   text,
    shape         text NOT NULL CHECK (shape IN ('live', 'full', 'logger')),
    start_time    timestamptz NOT NULL,
    end_time      timestamptz NOT NULL,
    final_status  text NOT NULL,
    final_balance double precision,
    final_pnl     double precision,
    content_hash  text NOT NULL,
    steps         integer NOT NULL,
    samples       integer NOT NULL,
    body          bytea NOT NULL,
    PRIMARY KEY (window_id, trajectory_id)
);
ALTER TABLE babylon_training.raw_trajectories ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX raw_trajectories_trajectory ON babylon_training.raw_trajectories (trajectory_id);
CREATE INDEX raw_trajectories_agent ON babylon_training.raw_trajectories (agent_id);

CREATE TABLE babylon_training.quarantined_trajectories (
    window_id      text NOT NULL,
    trajectory_id  text NOT NULL,
    reason         text NOT NULL,
    place          text NOT NULL,
    row_hash       text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_id, trajectory_id, reason)
)
"""

CALLS = """
CREATE TABLE babylon_training.inference_calls (
    call_id          text PRIMARY KEY,
    created_at       timestamptz NOT NULL,
    model            text NOT NULL,
    policy           text,
    policy_step      integer,
    agent_id         text,
    trajectory_id    text,
    step             integer,
    messages         bytea NOT NULL,
    response         text NOT NULL,
    prompt_token_ids integer[],
    token_ids        integer[],
    logprobs         double precision[],
    temperature      double precision,
    seed             bigint,
    latency_ms       double precision,
    finish_reason    text,
    CHECK (token_ids IS NULL OR logprobs IS NULL OR cardinality(token_ids) = cardinality(logprobs))
);
ALTER TABLE babylon_training.inference_calls ALTER COLUMN messages SET STORAGE EXTERNAL;
CREATE INDEX inference_calls_trajectory ON babylon_training.inference_calls (trajectory_id, step);
CREATE INDEX inference_calls_agent ON babylon_training.inference_calls (agent_id, created_at);
CREATE INDEX inference_calls_created ON babylon_training.inference_calls (created_at)
"""

SCORES = """
CREATE TABLE babylon_training.trajectory_scores (
    window_id      text NOT NULL,
    trajectory_id  text NOT NULL,
    agent_id       text NOT NULL,
    scorer         text NOT NULL,
    scorer_version text NOT NULL,
    score          double precision,
    final          boolean NOT NULL,
    steps          integer[] NOT NULL,
    step_scores    double precision[] NOT NULL,
    step_states    text[],
    step_worth     double precision[],
    step_final     boolean[],
    reasoning      text,
    metrics        jsonb,
    scored_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_id, trajectory_id, scorer, scorer_version),
    CHECK (cardinality(steps) = cardinality(step_scores))
);
CREATE INDEX trajectory_scores_agent ON babylon_training.trajectory_scores (agent_id);
COMMENT ON COLUMN babylon_training.trajectory_scores.score IS 'mean of the known step scores; null when none is known';

CREATE VIEW babylon_training.ruler_scores AS
SELECT window_id, agent_id, trajectory_id, score, reasoning,
       scorer || '@' || scorer_version AS scoring_method, metrics
FROM babylon_training.trajectory_scores
WHERE score IS NOT NULL
"""

DATASETS = """
CREATE TABLE babylon_training.training_datasets (
    id               text PRIMARY KEY,
    window_id        text NOT NULL,
    samples          integer NOT NULL,
    trainable_tokens bigint NOT NULL,
    counts           jsonb NOT NULL,
    body             bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE babylon_training.training_datasets ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX training_datasets_window ON babylon_training.training_datasets (window_id);

CREATE TABLE babylon_training.training_dataset_samples (
    dataset_id    text NOT NULL REFERENCES babylon_training.training_datasets (id) ON DELETE CASCADE,
    sample_id     text NOT NULL,
    trajectory_id text NOT NULL,
    agent_id      text NOT NULL,
    step          integer NOT NULL,
    call          integer NOT NULL,
    group_key     text NOT NULL,
    policy        text,
    reward        double precision,
    advantage     double precision,
    trains_as     text NOT NULL CHECK (trains_as IN ('policy_gradient', 'recompute', 'imitate', 'skip')),
    skip_reason   text,
    tokens        integer NOT NULL,
    PRIMARY KEY (dataset_id, sample_id)
);
CREATE INDEX training_dataset_samples_trajectory ON babylon_training.training_dataset_samples (trajectory_id);
CREATE INDEX training_dataset_samples_agent ON babylon_training.training_dataset_samples (agent_id)
"""

# Step 0 is the base model as it is: no parent, window or dataset. A parent is extended once per chain; the empty text
# stands for "no parent", which is one parent as well.
CHECKPOINTS = """
CREATE TABLE babylon_training.model_checkpoints (
    id             text PRIMARY KEY,
    chain          text NOT NULL,
    step           integer NOT NULL CHECK (step >= 0),
    parent_id      text REFERENCES babylon_training.model_checkpoints (id),
    window_id      text,
    dataset_id     text REFERENCES babylon_training.training_datasets (id),
    backend        text NOT NULL,
    base_model     text NOT NULL,
    settings       jsonb NOT NULL,
    seed           bigint NOT NULL,
    versions       jsonb NOT NULL,
    metrics        jsonb NOT NULL,
    path           text NOT NULL,
    weights_sha256 text NOT NULL,
    dagster_run_id text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CHECK (parent_id <> id),
    CHECK (step = 0 OR (parent_id IS NOT NULL AND window_id IS NOT NULL AND dataset_id IS NOT NULL))
);
CREATE UNIQUE INDEX model_checkpoints_parent ON babylon_training.model_checkpoints (chain, coalesce(parent_id, ''));
CREATE UNIQUE INDEX model_checkpoints_step ON babylon_training.model_checkpoints (chain, step);
CREATE UNIQUE INDEX model_checkpoints_window ON babylon_training.model_checkpoints (chain, window_id);
CREATE INDEX model_checkpoints_dataset ON babylon_training.model_checkpoints (dataset_id);

CREATE TABLE babylon_training.training_jobs (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_id      text NOT NULL,
    chain          text NOT NULL,
    parent_id      text,
    dataset_id     text,
    state          text NOT NULL
                   CHECK (state IN ('prepared', 'submitted', 'training', 'trained', 'failed', 'skipped')),
    reason         text,
    backend        text,
    external_id    text,
    checkpoint_id  text,
    dagster_run_id text,
    usage          jsonb,
    cost_usd       double precision,
    created_at     timestamptz NOT NULL DEFAULT now(),
    heartbeat      timestamptz NOT NULL DEFAULT now(),
    CHECK (state NOT IN ('failed', 'skipped') OR reason IS NOT NULL)
);
CREATE INDEX training_jobs_window ON babylon_training.training_jobs (chain, window_id);

CREATE TABLE babylon_training.checkpoint_evaluations (
    checkpoint_id text NOT NULL,
    evaluation    text NOT NULL,
    version       text NOT NULL,
    window_id     text,
    baseline_id   text,
    value         double precision,
    low           double precision,
    high          double precision,
    seeds         bigint[],
    results       jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (checkpoint_id, evaluation, version)
);
COMMENT ON COLUMN babylon_training.checkpoint_evaluations.low IS 'lower end of the interval of value; high the upper';
"""

PROMOTIONS = """
CREATE TABLE babylon_training.promotions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain          text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('promotion', 'rollback')),
    from_id        text REFERENCES babylon_training.model_checkpoints (id),
    to_id          text REFERENCES babylon_training.model_checkpoints (id),
    promoted_by    text NOT NULL,
    why            text NOT NULL,
    verdict        jsonb,
    dagster_run_id text,
    promoted_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX promotions_chain ON babylon_training.promotions (chain, id);

CREATE FUNCTION babylon_training.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only: write a new row', ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON babylon_training.promotions
    FOR EACH STATEMENT EXECUTE FUNCTION babylon_training.refuse_change()
"""


def upgrade() -> None:
    for statements in (WINDOWS, TRAJECTORIES, CALLS, SCORES, DATASETS, CHECKPOINTS, PROMOTIONS):
        op.get_bind().exec_driver_sql(statements)
