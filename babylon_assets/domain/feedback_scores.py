"""Judgments from outside of the environment as scores of steps: a reward that lives nowhere in the record.

A judgment names a call, or an agent and a time. A time means the last step that the agent had decided by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pandas as pd

NAME = "feedback"
#: The column with the judgments that are texts, for scorers that ask for texts.
COMMENTS = "comments"
_Step = tuple[str, int]


class Judgment(Protocol):
    """What is needed of a judgment."""

    @property
    def call_id(self) -> str | None: ...
    @property
    def trajectory_id(self) -> str | None: ...
    @property
    def at(self) -> datetime | None: ...
    @property
    def number(self) -> float | None: ...
    @property
    def text(self) -> str | None: ...


@dataclass(frozen=True)
class FeedbackScorer:
    """The mean of the numbers that a step was judged with; NaN without one. True is 1, false is 0."""

    numbers: Mapping[_Step, list[float]]
    name: str = NAME
    version: str = "1"

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        keys = zip(steps["trajectory_id"], steps["step"], strict=True)
        means = {step: sum(values) / len(values) for step, values in self.numbers.items()}
        return pd.Series([means.get(key, float("nan")) for key in keys], index=steps.index, dtype="float64")


@dataclass(frozen=True)
class JudgedSteps:
    """The judgments of a window's steps."""

    numbers: Mapping[_Step, list[float]]
    texts: Mapping[_Step, list[str]]

    def comments(self, steps: pd.DataFrame) -> pd.Series[Any]:
        """The texts of each step, a line each; None without one."""
        keys = zip(steps["trajectory_id"], steps["step"], strict=True)
        return pd.Series(["\n".join(self.texts.get(key, ())) or None for key in keys], index=steps.index, dtype=object)


def judged_steps(
    steps: pd.DataFrame, steps_of_calls: Mapping[str, _Step], judgments: Iterable[Judgment]
) -> JudgedSteps:
    """Which steps judgments are of.

    Args:
        steps: with `trajectory_id`, `step` and `timestamp_ms`.
        steps_of_calls: the step of each call that was joined.
    """
    times: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for trajectory, step, at in zip(steps["trajectory_id"], steps["step"], steps["timestamp_ms"], strict=True):
        times[trajectory].append((int(at), int(step)))
    judged = JudgedSteps(defaultdict(list), defaultdict(list))
    for judgment in judgments:
        step = _step(judgment, steps_of_calls, times)
        if step is not None and judgment.number is not None:
            judged.numbers[step].append(judgment.number)
        if step is not None and judgment.text is not None:
            judged.texts[step].append(judgment.text)
    return judged


def _step(
    judgment: Judgment, steps_of_calls: Mapping[str, _Step], times: Mapping[str, list[tuple[int, int]]]
) -> _Step | None:
    if judgment.call_id is not None:
        return steps_of_calls.get(judgment.call_id)
    if judgment.trajectory_id is None or judgment.at is None:
        return None
    until = int(judgment.at.timestamp() * 1000)
    before = [place for place in times.get(judgment.trajectory_id, ()) if place[0] <= until]
    return (judgment.trajectory_id, max(before)[1]) if before else None
