"""Scoring a window: what the game says of its trades, what came with imported trajectories, what a judge says.

The rules are in `environments.babylon.outcomes`, `domain.rewards` and `domain.llm_judge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pandas as pd

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain import joining, llm_judge, rewards
from babylon_assets.domain.imported_rewards import with_imported
from babylon_assets.domain.llm_judge import Comparison, JudgeAnswer, JudgeScore
from babylon_assets.domain.rewards import Scorer
from babylon_assets.domain.scorers import load_scorers
from babylon_assets.environments.babylon import outcome_tables, reward_judgments
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.ledger import inference_calls, judge_scores, trajectories
from babylon_assets.ledger import scores as score_ledger
from babylon_assets.ledger.database import Connection, judge_lock
from babylon_assets.ledger.scores import Revision, ScorerNote
from babylon_assets.orchestration.collector import collector_held_off
from babylon_assets.orchestration.resources import Installation

#: How often the judge is asked about one group, over all runs.
MOST_ATTEMPTS = 9


@dataclass(frozen=True)
class ScoredWindow:
    """A window's scores, which scorers gave them, and the revision that they are kept as.

    Attributes:
        judging: numbers about the judge: groups, judged and missing ones, requests, tokens and cost.
        failures: why groups could not be judged, each reason once.
    """

    scores: pd.DataFrame
    versions: Mapping[str, str]
    revision: Revision
    judging: Mapping[str, float | int | None] = field(default_factory=dict)
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class JudgedWindow:
    """What a judge was asked about a window, and what is known of it by now."""

    rubric: str
    version: str
    asked: list[Comparison]
    judgments: Mapping[str, JudgeAnswer]


@collector_held_off()
def score_window(installation: Installation, window: str) -> ScoredWindow:
    """Score every step that is kept of a window with what is known of it by now, and keep the scores.

    Raises:
        SettingsError: a scorer of the user's cannot be loaded or failed, a weight names no scorer.
        PermanentError: the judge refuses the key or has no such model.
    """
    settings = installation.settings
    added = load_scorers(settings.rewards.scorers)
    asked = None if settings.judge.model is None else _ask_judge(installation, window)
    with installation.connect() as conn:
        steps = trajectories.read_steps(conn, window)
        given = trajectories.read_imported_rewards(conn, window)
        own = steps[~steps["trajectory_id"].isin(list(given))]
        outcomes = OutcomeTables.empty()
        if len(own) or not given:
            outcomes = outcome_tables.read_outcomes(
                conn, window, own, horizon_minutes=settings.rewards.perp_horizon_minutes, windows=settings.windows
            )
        weights, verdicts = dict(settings.rewards.weights), list[JudgeScore]()
        if asked is not None:
            weights.setdefault(llm_judge.NAME, 0.0)
            added[llm_judge.NAME], verdicts = llm_judge.judge_scorer(own, asked.asked, asked.judgments, asked.version)
        scores = _scores(settings, own, outcomes, weights, added)
        scores = with_imported(scores, steps, given)
        versions = rewards.versions(weights, added)
        notes = {} if asked is None else _notes(settings, asked, verdicts)
        revision = score_ledger.replace_scores(conn, window, scores, versions, notes=notes, imported=given.keys())
        if asked is not None and settings.judge.write_reward_judgments:
            _write_back(settings, conn, window, asked, verdicts)
    return ScoredWindow(scores, versions, revision, *_judge_summary(asked))


def _scores(
    settings: Settings,
    steps: pd.DataFrame,
    outcomes: OutcomeTables,
    weights: Mapping[str, float],
    added: Mapping[str, Scorer],
) -> pd.DataFrame:
    return rewards.score_window(
        steps,
        outcomes,
        weights=weights,
        invalid_reward=settings.rewards.invalid_action_reward,
        added=added,
        as_of=datetime.now(UTC),
        horizon_minutes=settings.rewards.perp_horizon_minutes,
        full_scale_percent=settings.rewards.perp_full_scale_percent,
    )


def _ask_judge(installation: Installation, window: str) -> JudgedWindow:
    """Have what is not judged yet judged, as far as the limit of attempts goes; one run at a time asks about a window.

    Imported trajectories keep the rewards that came with them and are not judged.
    """
    settings = installation.settings
    prepare_libraries(settings)
    from babylon_assets.evaluation import llm_judge as judge

    assert settings.judge.model is not None
    model, rubric = settings.judge.model, judge.rubric_of(settings.judge)
    with judge_lock(installation.database, window) as conn:
        imported = trajectories.read_imported_rewards(conn, window)
        records = [each for each in trajectories.read_window(conn, window) if each.trajectory_id not in imported]
        asked = llm_judge.comparisons(
            window,
            records,
            inference_calls.calls_of(conn, window, joining.named_calls(records)),
            model=model,
            rubric=rubric,
            moment_seconds=settings.datasets.moment_seconds,
            group_mode=settings.datasets.group_by,
            group_size=settings.judge.group_size,
        )
        ids = [comparison.id for comparison in asked]
        open_ones = _open(asked, judge_scores.find(conn, ids), MOST_ATTEMPTS)
        judge.judge(settings.judge, open_ones, lambda one, said: judge_scores.keep(conn, one, model, said))
        return JudgedWindow(rubric, llm_judge.scorer_version(model, rubric), asked, judge_scores.find(conn, ids))


def _open(asked: list[Comparison], kept: Mapping[str, JudgeAnswer], most: int) -> list[tuple[Comparison, int]]:
    """What has no verdict yet, and how often it may still be asked about."""
    left = [(each, most - kept[each.id].attempts if each.id in kept else most) for each in asked]
    judged = {name for name, judgment in kept.items() if judgment.scores is not None}
    return [(each, attempts) for each, attempts in left if attempts > 0 and each.id not in judged]


def _notes(settings: Settings, asked: JudgedWindow, verdicts: list[JudgeScore]) -> dict[tuple[str, str], ScorerNote]:
    """What the judge said of each trajectory, and its share of what that cost, for the scores' own columns."""
    costs: dict[str, float] = {}
    for comparison in asked.asked:
        judgment = asked.judgments.get(comparison.id)
        for each in comparison.candidates if judgment is not None and judgment.cost_usd is not None else ():
            share = (judgment.cost_usd or 0.0) / len(comparison.candidates) if judgment else 0.0
            costs[each.trajectory_id] = costs.get(each.trajectory_id, 0.0) + share
    return {
        (llm_judge.NAME, verdict.trajectory_id): ScorerNote(
            verdict.reasoning.replace("\0", "\ufffd"),
            {
                "model": settings.judge.model,
                "judged_steps": len(verdict.steps),
                "cost_usd": costs.get(verdict.trajectory_id),
            },
        )
        for verdict in verdicts
    }


def _write_back(
    settings: Settings, conn: Connection, window: str, asked: JudgedWindow, verdicts: list[JudgeScore]
) -> None:
    assert settings.judge.model is not None
    reward_judgments.write_judgments(
        conn, window, verdicts, model=settings.judge.model, version=asked.version, rubric=asked.rubric
    )


def _judge_summary(asked: JudgedWindow | None) -> tuple[dict[str, float | int | None], tuple[str, ...]]:
    if asked is None:
        return {}, ()
    known = [asked.judgments[each.id] for each in asked.asked if each.id in asked.judgments]
    judged = sum(each.scores is not None for each in known)
    counts = {"judge_groups": len(asked.asked), "judged": judged, "not_judged": len(asked.asked) - judged}
    failures = {each.error for each in known if each.error is not None}
    return {**counts, **llm_judge.spent(known)}, tuple(sorted(failures))
