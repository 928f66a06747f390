"""The state of the loop, read from our tables in one snapshot: the facts of a report.

The game's own tables and the disk are looked at elsewhere. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import namedtuple_row

from babylon_assets.domain.checkpoint_states import explain_end
from babylon_assets.domain.display_text import shorten_id
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.token_counts import explain_early_end, format_trained
from babylon_assets.domain.verdict_table import explain_decision, verdict_rows
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.ledger import checkpoints, verdicts, windows
from babylon_assets.ledger.training_jobs import SILENT_SECONDS
from babylon_assets.ledger.windows import WindowRow
from babylon_assets.report.summary import (
    HOSTED_SILENT_AFTER,
    Cost,
    EmptiedWindow,
    EvaluationSummary,
    JobSummary,
    PolicySummary,
    PromotionSummary,
    QuarantineSummary,
    Report,
    VerdictSummary,
    WindowSummary,
)

#: Rows of the longer tables of a page.
MOST = 200
#: Promotions that are read, which the curve of a month of hours marks.
MOST_PROMOTIONS = 720
Names = dict[str, str]

_CHECKPOINTS: LiteralString = """
SELECT id, chain, step, window_id, rejected, metrics FROM babylon_training.model_checkpoints"""
_RUNNING: LiteralString = """
SELECT window_id, chain, state, backend, created_at, heartbeat, reason FROM babylon_training.training_jobs
WHERE state IN ('prepared', 'submitted', 'training') ORDER BY id"""
_FAILED: LiteralString = """
SELECT * FROM (
    SELECT DISTINCT ON (job.window_id) job.window_id, job.chain, job.state, job.backend, job.created_at, job.heartbeat,
           job.reason, job.id
    FROM babylon_training.training_jobs AS job JOIN babylon_training.windows AS hour USING (window_id)
    WHERE hour.checkpoint_id IS NULL ORDER BY job.window_id, job.id DESC) AS last
WHERE state = 'failed' ORDER BY id DESC"""
_PROMOTIONS: LiteralString = """
SELECT kind, from_id, to_id, promoted_by, why, verdict, promoted_at FROM babylon_training.promotions
WHERE chain = %s ORDER BY id DESC LIMIT %s"""
_EVALUATIONS: LiteralString = """
SELECT checkpoint_id, window_id, evaluation, value, low, high, baseline_id, created_at
FROM babylon_training.checkpoint_evaluations WHERE value IS NOT NULL
ORDER BY created_at DESC, checkpoint_id, evaluation LIMIT 24"""
_QUARANTINE: LiteralString = """
SELECT reason, count(*) AS rows, count(DISTINCT window_id) AS windows, max(quarantined_at) AS newest,
       (array_agg(trajectory_id ORDER BY quarantined_at DESC, trajectory_id))[1] AS trajectory,
       (array_agg(place ORDER BY quarantined_at DESC, trajectory_id))[1] AS place
FROM babylon_training.quarantined_trajectories GROUP BY reason ORDER BY rows DESC, reason LIMIT %s"""
_QUARANTINED: LiteralString = """
SELECT window_id, count(DISTINCT trajectory_id) FROM babylon_training.quarantined_trajectories GROUP BY window_id"""
_EMPTIED: LiteralString = """
SELECT gone.window_id AS window, bool_or(coalesce(now.body <> '', false)) AS frozen_again
FROM babylon_training.training_datasets AS gone
LEFT JOIN babylon_training.windows AS hour ON hour.window_id = gone.window_id
LEFT JOIN babylon_training.training_datasets AS now ON now.id = hour.dataset_id
WHERE gone.body = '' GROUP BY gone.window_id ORDER BY gone.window_id DESC LIMIT %s"""
_RECORDED: LiteralString = """
SELECT hour.window_id, sum((SELECT count(policy) FROM unnest(kept.policies) AS policy))::int8
FROM (SELECT window_id, dataset_id FROM babylon_training.windows WHERE dataset_id IS NOT NULL
      ORDER BY window_id DESC LIMIT 24) AS hour
JOIN babylon_training.training_dataset_trajectories AS kept USING (dataset_id) GROUP BY 1"""
_COSTS: LiteralString = """
SELECT coalesce(backend, 'none') AS backend, count(*) AS jobs,
       coalesce(sum((usage->>'seconds')::float8), 0) AS seconds,
       coalesce(sum((usage->>'tokens')::float8), 0)::int8 AS tokens,
       coalesce(sum(cost_usd), 0) AS usd,
       coalesce(sum(cost_usd) FILTER (WHERE created_at >= date_trunc('day', now(), 'UTC')), 0) AS usd_today
FROM babylon_training.training_jobs GROUP BY 1 ORDER BY usd DESC, jobs DESC"""
_SAMPLES: LiteralString = """
SELECT kind.key, sum(kind.value::int8)::int8 FROM babylon_training.windows AS hour
JOIN babylon_training.training_datasets AS made ON made.id = hour.dataset_id
CROSS JOIN LATERAL jsonb_each_text(made.counts) AS kind
WHERE kind.key IN ('policy_gradient', 'recompute', 'sft') OR starts_with(kind.key, 'skip: ') GROUP BY kind.key"""


def read_report(conn: Connection[Any], chain: str, place: str, now: datetime, grid: WindowGrid) -> Report:
    """The facts that our tables have of a chain; begins a transaction, in which all of it is read as of one moment.

    Args:
        conn: outside a transaction.
        grid: how time is cut.
        place: where the database is, for the page.
    """
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    names, made_of, ends, metrics = _checkpoints(conn)
    head = checkpoints.head(conn, chain)
    promoted = _rows(conn, _PROMOTIONS, lambda row: _promotion(row, names, made_of), chain, MOST_PROMOTIONS)
    lost = {row[0]: row[1] for row in conn.execute(_QUARANTINED)}
    recorded = {row[0]: row[1] for row in conn.execute(_RECORDED)}
    return Report(
        chain=chain,
        place=place,
        made_at=now.astimezone(UTC),
        windows=[
            replace(
                _window(row, grid, names, ends, lost.get(row.window_id, 0)),
                recorded=recorded.get(row.window_id),
                trained_on=format_trained(metrics.get(row.checkpoint_id or "", {})),
                ended_early=explain_early_end(metrics.get(row.checkpoint_id or "", {})),
            )
            for row in windows.list_windows(conn)
        ],
        head=PolicySummary(name=policy_name(chain, head.step), window=head.window_id, made_at=head.created_at)
        if head
        else None,
        promoted=_served(promoted),
        running=_rows(conn, _RUNNING, _job),
        failed=_rows(conn, _FAILED, _job),
        promotions=promoted,
        verdict=_verdict(verdicts.newest(conn, chain), names, made_of),
        evaluations=_rows(conn, _EVALUATIONS, lambda row: _evaluation(row, names)),
        quarantine=_rows(conn, _QUARANTINE, lambda row: QuarantineSummary(**row._asdict()), MOST),
        emptied=_rows(conn, _EMPTIED, lambda row: EmptiedWindow(**row._asdict()), MOST),
        costs=_rows(conn, _COSTS, lambda row: Cost(**row._asdict())),
        samples={row[0]: row[1] for row in conn.execute(_SAMPLES)},
    )


def unread(row: WindowRow, grid: WindowGrid) -> WindowSummary:
    """A window of the game that no run has looked at, as the report shows it."""
    return _window(row, grid, {}, {}, 0)


def _rows(conn: Connection[Any], query: LiteralString, build: Callable[[Any], Any], *parameters: Any) -> list[Any]:
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        return [build(row) for row in cursor.execute(query, parameters)]


def _checkpoints(conn: Connection[Any]) -> tuple[Names, dict[str, str | None], dict[str, str], dict[str, Any]]:
    """Name and window of every checkpoint of every chain, by id; why its chain ends there; its metrics."""
    rows = conn.execute(_CHECKPOINTS).fetchall()
    names = {row[0]: policy_name(row[1], row[2]) for row in rows}
    ends = {row[0]: explain_end(row[4]) for row in rows if row[4] is not None}
    return names, {row[0]: row[3] for row in rows}, ends, {row[0]: row[5] for row in rows}


def _window(row: WindowRow, grid: WindowGrid, names: Names, ends: Mapping[str, str], quarantined: int) -> WindowSummary:
    return WindowSummary(
        id=row.window_id,
        state=row.status,
        ends=grid.parse(row.window_id).end,
        trajectories=row.trajectories,
        agents=row.agents,
        samples=row.samples,
        reward=row.reward_mean,
        deviation=row.reward_std,
        references=row.reference,
        policy=_named(names, row.checkpoint_id),
        parent=_named(names, row.parent_id),
        reason=row.reason,
        rejected=ends.get(row.checkpoint_id or ""),
        quarantined=quarantined,
        understood=row.understood,
        unknown_words=row.unknown_words,
        understanding=row.understanding,
    )


def _named(names: Names, identity: str | None) -> str | None:
    """A checkpoint's policy; the start of its id where the checkpoint itself is not kept."""
    return None if identity is None else names.get(identity, shorten_id(identity))


def _job(row: Any) -> JobSummary:
    return JobSummary(
        window=row.window_id,
        chain=row.chain,
        state=row.state,
        backend=row.backend,
        started_at=row.created_at,
        heartbeat=row.heartbeat,
        silent_after=HOSTED_SILENT_AFTER if row.state == "submitted" else timedelta(seconds=SILENT_SECONDS),
        reason=row.reason,
    )


def _promotion(row: Any, names: Names, made_of: dict[str, str | None]) -> PromotionSummary:
    return PromotionSummary(
        kind=row.kind,
        before=_named(names, row.from_id),
        after=_named(names, row.to_id),
        window=made_of.get(row.to_id),
        by=row.promoted_by,
        why=explain_decision(row.why, row.verdict),
        at=row.promoted_at,
    )


def _served(promotions: list[PromotionSummary]) -> PolicySummary | None:
    """What the newest promotion or rollback put in place."""
    if not promotions or promotions[0].after is None:
        return None
    newest = promotions[0]
    return PolicySummary(name=promotions[0].after, window=newest.window, made_at=newest.at)


def _verdict(
    verdict: verdicts.StoredVerdict | None, names: Names, made_of: dict[str, str | None]
) -> VerdictSummary | None:
    if verdict is None or verdict.judged_at is None:
        return None
    return VerdictSummary(
        policy=_named(names, verdict.checkpoint_id) or "",
        window=made_of.get(verdict.checkpoint_id),
        passed=verdict.passed,
        why=explain_decision(verdict.why, verdict.verdict),
        at=verdict.judged_at,
        rows=verdict_rows(verdict.verdict),
    )


def _evaluation(row: Any, names: Names) -> EvaluationSummary:
    return EvaluationSummary(
        policy=_named(names, row.checkpoint_id) or "",
        window=row.window_id,
        evaluation=row.evaluation,
        value=row.value,
        low=row.low,
        high=row.high,
        baseline=_named(names, row.baseline_id),
        at=row.created_at,
    )
