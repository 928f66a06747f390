"""Scoring a window: what the environment says of its steps, what came with imported trajectories, what a judge says."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pandas as pd

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain import feedback_scores, joining, llm_judge, rewards
from babylon_assets.domain.imported_rewards import with_imported
from babylon_assets.domain.llm_judge import Comparison, JudgeAnswer, JudgeScore
from babylon_assets.domain.scorers import load_scorers
from babylon_assets.domain.step_texts import add_texts, needs_texts
from babylon_assets.domain.understanding import Understanding, understand
from babylon_assets.environments.base import WriteBack
from babylon_assets.environments.weighted_scorers import choose_weights
from babylon_assets.ledger import feedback, inference_calls, judge_scores, trajectories, windows
from babylon_assets.ledger import scores as score_ledger
from babylon_assets.ledger.database import Connection, judge_lock
from babylon_assets.ledger.scores import Revision, ScorerNote
from babylon_assets.ledger.sessions import only_reads
from babylon_assets.orchestration.collector import collector_held_off
from babylon_assets.orchestration.resources import Installation

_log = logging.getLogger(__name__)

#: How often the judge is asked about one group, over all runs.
MOST_ATTEMPTS = 9


@dataclass(frozen=True)
class ScoredWindow:
    """A window's scores, which scorers gave them, and the revision that they are kept as.

    Attributes:
        judge_numbers: numbers about the judge: groups, judged and missing ones, requests, tokens and cost.
        failures: why groups could not be judged, each reason once.
        understanding: how much of the environment's own steps was understood.
    """

    scores: pd.DataFrame
    versions: Mapping[str, str]
    revision: Revision
    understanding: Understanding
    judge_numbers: Mapping[str, float | int | None] = field(default_factory=dict)
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
    settings, environment = installation.settings, installation.environment
    judged = None if settings.judge.model is None else _ask_judge(installation, window)
    with installation.connect() as conn, installation.source_of(conn) as source:
        fresh = _score(installation, conn, source, window, judged)
        notes = {} if judged is None else _notes(settings, judged, fresh.verdicts)
        revision = score_ledger.replace_scores(
            conn, window, fresh.scores, fresh.versions, notes=notes, imported=fresh.imported
        )
        left_out = environment.count_left_out(source, window) if environment.has_record(source) else {}
        _note_understanding(conn, window, fresh.understanding, left_out)
        if judged is not None and settings.judge.write_reward_judgments and environment.write_back is not None:
            if installation.database.is_apart and only_reads(source):
                place = installation.database.source_place
                _log.warning("WRITE_REWARD_JUDGMENTS: %s: no judgment is written, because %s only reads", window, place)
            else:
                _write_judgments(environment.write_back, settings, source, window, judged, fresh.verdicts)
    return ScoredWindow(fresh.scores, fresh.versions, revision, fresh.understanding, *_judge_summary(judged))


def score_beside(installation: Installation, window: str) -> FreshScores:
    """Score what is kept of a window with what is known of it by now, for a branch; the window's own scores stay.

    Raises:
        SettingsError, PermanentError: as of `score_window`.
    """
    judged = None if installation.settings.judge.model is None else _ask_judge(installation, window)
    with installation.connect() as conn, installation.source_of(conn) as source:
        return _score(installation, conn, source, window, judged)


def scores_are_current(installation: Installation, window: str) -> bool:
    """Whether scoring a window now would give the scores that it has; nothing is written, and no judge is asked."""
    if installation.settings.judge.model is not None:
        return False
    with installation.connect() as conn, installation.source_of(conn) as source:
        fresh = _score(installation, conn, source, window, None)
        return score_ledger.are_current(conn, window, fresh.scores, fresh.versions, imported=fresh.imported)


@dataclass(frozen=True)
class FreshScores:
    """What scoring gives, before any of it is kept; `imported` are the trajectories whose rewards came with them."""

    scores: pd.DataFrame
    weights: Mapping[str, float]
    versions: Mapping[str, str]
    understanding: Understanding
    verdicts: list[JudgeScore]
    imported: Collection[str]


def _score(
    installation: Installation, conn: Connection, source: Connection, window: str, judged: JudgedWindow | None
) -> FreshScores:
    """Score what is kept of a window with what is known of it by now."""
    settings, environment = installation.settings, installation.environment
    added = {
        **environment.scorers,
        **load_scorers(settings.rewards.scorers, reserved=[*environment.scorers, *environment.detail]),
    }
    steps = trajectories.read_steps(conn, window, environment.detail)
    given = trajectories.read_imported_rewards(conn, window)
    own = steps[~steps["trajectory_id"].isin(list(given))]
    if len(own) or not given:
        worth = environment.value_steps(source, window, own, datetime.now(UTC))
    else:
        worth = rewards.unvalued(own)
    understanding = understand(own, worth)
    weights, verdicts = dict(choose_weights(settings, environment)), list[JudgeScore]()
    if judged is not None:
        weights.setdefault(llm_judge.NAME, 0.0)
        added[llm_judge.NAME], verdicts = llm_judge.judge_scorer(own, judged.asked, judged.judgments, judged.version)
    own = with_texts(conn, window, own) if any(needs_texts(scorer) for scorer in added.values()) else own
    if feedback_scores.NAME in weights:
        added[feedback_scores.NAME] = feedback_scores.FeedbackScorer(read_feedback(conn, window, own).numbers)
    scores = rewards.score_valued(
        own, worth, weights=weights, invalid_reward=settings.rewards.invalid_action_reward, added=added
    )
    scores = rewards.without_extremes(with_imported(scores, steps, given))
    return FreshScores(scores, weights, rewards.versions(weights, added), understanding, verdicts, given.keys())


def _note_understanding(
    conn: Connection, window: str, understanding: Understanding, left_out: Mapping[str, int]
) -> None:
    """Put into the window's row how much of it was understood; nothing where nothing was to be."""
    share = understanding.share if understanding.actions else None
    counts = {**understanding.counts, **{f"left out: {why}": rows for why, rows in left_out.items()}}
    words = understanding.list_words() or None
    windows.upsert_window(conn, window, understood=share, unknown_words=words, understanding=counts)


def with_texts(conn: Connection, window: str, steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with the columns `prompt`, `answer` and `reasoning` of their calls, recorded ones included."""
    records = trajectories.read_window(conn, window)
    named = inference_calls.calls_of(conn, window, joining.named_calls(records))
    texts = add_texts(steps, joining.join_calls(records, named).samples)
    return texts.assign(**{feedback_scores.COMMENTS: read_feedback(conn, window, steps).comments(steps)})


def read_feedback(conn: Connection, window: str, steps: pd.DataFrame) -> feedback_scores.JudgedSteps:
    """What was sent to the gateway about the steps of a window."""
    records = trajectories.read_heads(conn, window)
    calls = inference_calls.calls_of(conn, window, joining.named_calls(records))
    ids = {id(call): call_id for call_id, call in calls.items()}
    joined = joining.join_calls(records, calls).samples
    steps_of_calls = {
        ids[id(call)]: (record.trajectory_id, raw.step) for record, raw, call in joined if call is not None
    }
    return feedback_scores.judged_steps(steps, steps_of_calls, feedback.feedback_of(conn, window, list(steps_of_calls)))


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
        records = [record for record in trajectories.read_window(conn, window) if record.trajectory_id not in imported]
        comparisons = llm_judge.comparisons(
            window,
            records,
            inference_calls.calls_of(conn, window, joining.named_calls(records)),
            model=model,
            rubric=rubric,
            moment_seconds=settings.datasets.moment_seconds,
            group_mode=settings.datasets.group_by,
            group_size=settings.judge.group_size,
        )
        ids = [comparison.id for comparison in comparisons]
        open_ones = _open(comparisons, judge_scores.find(conn, ids), MOST_ATTEMPTS)
        judge.judge(settings.judge, open_ones, lambda request, answer: judge_scores.keep(conn, request, model, answer))
        return JudgedWindow(rubric, llm_judge.scorer_version(model, rubric), comparisons, judge_scores.find(conn, ids))


def _open(comparisons: list[Comparison], kept: Mapping[str, JudgeAnswer], most: int) -> list[tuple[Comparison, int]]:
    """What has no verdict yet, and how often it may still be asked about."""
    left = [
        (comparison, most - kept[comparison.id].attempts if comparison.id in kept else most)
        for comparison in comparisons
    ]
    judged = {name for name, judgment in kept.items() if judgment.scores is not None}
    return [(comparison, attempts) for comparison, attempts in left if attempts > 0 and comparison.id not in judged]


def _notes(settings: Settings, judged: JudgedWindow, verdicts: list[JudgeScore]) -> dict[tuple[str, str], ScorerNote]:
    """What the judge said of each trajectory, and its share of what that cost, for the scores' own columns."""
    costs: dict[str, float] = {}
    for comparison in judged.asked:
        judgment = judged.judgments.get(comparison.id)
        for candidate in comparison.candidates if judgment is not None and judgment.cost_usd is not None else ():
            share = (judgment.cost_usd or 0.0) / len(comparison.candidates) if judgment else 0.0
            costs[candidate.trajectory_id] = costs.get(candidate.trajectory_id, 0.0) + share
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


def _write_judgments(
    write_back: WriteBack,
    settings: Settings,
    conn: Connection,
    window: str,
    judged: JudgedWindow,
    verdicts: list[JudgeScore],
) -> None:
    assert settings.judge.model is not None
    write_back.write_judgments(
        conn, window, verdicts, model=settings.judge.model, version=judged.version, rubric=judged.rubric
    )


def _judge_summary(window: JudgedWindow | None) -> tuple[dict[str, float | int | None], tuple[str, ...]]:
    if window is None:
        return {}, ()
    known = [window.judgments[request.id] for request in window.asked if request.id in window.judgments]
    judged = sum(request.scores is not None for request in known)
    counts = {"judge_groups": len(window.asked), "judged": judged, "not_judged": len(window.asked) - judged}
    failures = {request.error for request in known if request.error is not None}
    return {**counts, **llm_judge.spent(known)}, tuple(sorted(failures))
