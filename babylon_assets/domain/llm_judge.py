"""What a judge is asked about a window and what its verdicts mean for the steps: the pure part of the scorer `ruler`.

What is judged is what is trained on: the samples of a group as `domain.datasets` makes them, each its own prompt and
its own answer, just as the policy saw and gave them; nothing of how a trade turned out. A group of one is not judged. A
step has the mean of its samples' scores; a step without one, or whose group could not be judged, has no score: never 0.
Asking is done in `evaluation.llm_judge`, keeping in `ledger.judge_scores`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from msgspec import structs

from babylon_assets.domain.chat_turns import answer_message, shown_text
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.grouping import GroupMode, group_key
from babylon_assets.domain.joining import JoinedSample, RecordedCall, join_calls
from babylon_assets.domain.rewards import JudgeScorer
from babylon_assets.domain.trajectories import Message, RawSample, TrajectoryRecord

NAME = "ruler"
#: Of how the judge is asked; another one asks again.
VERSION = "1"


class Candidate(NamedTuple):
    """A sample that is judged against others."""

    sample_id: str
    trajectory_id: str
    agent_id: str
    step: int
    messages: Sequence[Message]
    response: str


@dataclass(frozen=True)
class Comparison:
    """Samples of one group that are judged in one request; the id is the hash of judge, rubric and content."""

    id: str
    window: str
    group: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class JudgeAnswer:
    """What came of asking about a comparison.

    Attributes:
        scores, explanations: of each candidate, in their order; None while it could not be judged.
        error: why it could not.
        attempts, prompt_tokens, completion_tokens, cost_usd: of all requests, failed ones included; the cost is None
            where nobody knows the price.
    """

    scores: Sequence[float] | None
    explanations: Sequence[str] | None
    error: str | None
    attempts: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None


class JudgeScore(NamedTuple):
    """What the judge thinks of one trajectory of a window; `steps` has the score of each judged step."""

    trajectory_id: str
    score: float
    reasoning: str
    steps: dict[int, float]


def scorer_version(model: str, rubric: str) -> str:
    """The version of the scores of this judge with this rubric."""
    return f"{VERSION}-{content_id([model, rubric])[:8]}"


def comparisons(
    window: str,
    records: Iterable[TrajectoryRecord],
    calls: Mapping[str, RecordedCall],
    *,
    model: str,
    rubric: str,
    moment_seconds: float,
    group_mode: GroupMode = "moment",
    group_size: int = 16,
) -> list[Comparison]:
    """What to ask the judge about a window, ordered by group.

    A group of more than `group_size` samples is judged in parts of nearly the same size, drawn by the hash of the
    samples' ids; scores of two parts are not against each other.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    whole = [structs.replace(record, samples=list(record.samples)) for record in records]
    for sample in join_calls(whole, calls).samples:
        moment = {fact.step: fact.moment_ms for fact in sample.record.facts}[sample.raw.step]
        groups[group_key(window, moment, moment_seconds, group_mode, sample.record.agent_id)].append(_candidate(sample))
    return [
        _comparison(window, group, part, model, rubric)
        for group, members in sorted(groups.items())
        for part in _parts(members, group_size)
    ]


def _candidate(sample: JoinedSample) -> Candidate:
    record, raw = sample.record, sample.raw
    assert isinstance(raw, RawSample)  # the records have their texts
    name = f"{record.trajectory_id}/{raw.step}/{raw.call}"
    return Candidate(
        sample_id=name,
        trajectory_id=record.trajectory_id,
        agent_id=record.agent_id,
        step=raw.step,
        messages=raw.messages,
        response=shown_text(answer_message(raw)),
    )


def _parts(members: list[Candidate], size: int) -> list[list[Candidate]]:
    if len(members) < 2:
        return []
    count = ceil(len(members) / size)
    drawn = sorted(members, key=lambda sample: content_id(sample.sample_id)) if count > 1 else members
    return [sorted(drawn[start::count]) for start in range(count)]


def _comparison(window: str, group: str, members: list[Candidate], model: str, rubric: str) -> Comparison:
    content = [(sample.sample_id, sample.messages, sample.response) for sample in members]
    return Comparison(content_id([VERSION, model, rubric, content]), window, group, tuple(members))


def in_order(comparison: Comparison, answered: Iterable[tuple[str, float, str]]) -> tuple[list[float], list[str]]:
    """A judge's answer, (number from 1 as text, score, explanation) in any order, in the order of the candidates.

    Raises:
        ValueError: it does not have each candidate once, with a score from 0 to 1.
    """
    by_number = {number.strip(): (score, explanation) for number, score, explanation in answered}
    expected = [str(number) for number in range(1, len(comparison.candidates) + 1)]
    if sorted(by_number) != sorted(expected):
        raise ValueError(f"the answer does not score each of {len(expected)} candidates once")
    scores = [by_number[number][0] for number in expected]
    if not all(isfinite(score) and 0 <= score <= 1 for score in scores):
        raise ValueError("a score of the answer is not between 0 and 1")
    return scores, [by_number[number][1] for number in expected]


def judge_scorer(
    steps: pd.DataFrame, asked: Iterable[Comparison], judgments: Mapping[str, JudgeAnswer], version: str
) -> tuple[JudgeScorer, list[JudgeScore]]:
    """The scorer that gives each step (a frame with trajectory_id and step) its score, and a verdict per trajectory."""
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    scores_of: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for comparison in asked:
        judgment = judgments.get(comparison.id)
        if judgment is None or judgment.scores is None or judgment.explanations is None:
            continue
        for sample, score, why in zip(comparison.candidates, judgment.scores, judgment.explanations, strict=True):
            scores[sample.trajectory_id, sample.step].append(score)
            scores_of[sample.trajectory_id].append((sample.step, why))
    means = {key: sum(values) / len(values) for key, values in scores.items()}
    keys = zip(steps["trajectory_id"].tolist(), steps["step"].tolist(), strict=True)
    values: pd.Series[Any] = pd.Series([means.get(key, np.nan) for key in keys], index=steps.index, dtype="float64")
    return JudgeScorer(NAME, version, values), _verdicts(means, scores_of)


def _verdicts(
    means: Mapping[tuple[str, int], float], explanations: Mapping[str, list[tuple[int, str]]]
) -> list[JudgeScore]:
    of: dict[str, dict[int, float]] = defaultdict(dict)
    for (trajectory, step), score in sorted(means.items()):
        of[trajectory][step] = score
    return [
        JudgeScore(
            trajectory,
            sum(steps.values()) / len(steps),
            "\n".join(f"step {step}: {why}" for step, why in sorted(explanations[trajectory])),
            steps,
        )
        for trajectory, steps in of.items()
    ]


def spent(judgments: Iterable[JudgeAnswer]) -> dict[str, float | int | None]:
    """Requests, tokens and cost of judgments; the cost is None as soon as one of them has none that is known."""
    judgments = list(judgments)
    costs = [judgment.cost_usd for judgment in judgments]
    known = [cost for cost in costs if cost is not None]
    return {
        "judge_requests": sum(judgment.attempts for judgment in judgments),
        "judge_tokens": sum(judgment.prompt_tokens + judgment.completion_tokens for judgment in judgments),
        "judge_cost_usd": sum(known) if judgments and len(known) == len(costs) else None,
    }
