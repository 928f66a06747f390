"""Rewards that came with imported trajectories, kept apart from what the policy saw, and how they join those made here.

How they are read from a file is in `environments.files.imports`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pandas as pd


class ImportedStep(msgspec.Struct, frozen=True, gc=False):
    """What a file says of a step's reward; state as of `environments.babylon.outcomes`."""

    step: int
    state: str
    reward: float | None
    components: dict[str, float | None]


class ImportedRewards(msgspec.Struct, frozen=True, gc=False):
    """What a file says of the rewards of one trajectory, and the answers whose tokens came with it."""

    steps: list[ImportedStep]
    call_ids: list[str]


def with_imported(scores: pd.DataFrame, steps: pd.DataFrame, given: Mapping[str, ImportedRewards]) -> pd.DataFrame:
    """The scores of steps that were scored here, and of imported ones what came with them, in the order of `steps`.

    A component that one side lacks is not known there. Without imported trajectories the scores stay as they are.
    """
    if not given:
        return scores
    by_step = {(name, step.step): step for name, rewards in given.items() for step in rewards.steps}
    keys = list(zip(steps["trajectory_id"].tolist(), steps["step"].tolist(), strict=True))
    matches = [by_step.get(key) for key in keys]
    theirs = steps[[match is not None for match in matches]]
    matched = [match for match in matches if match is not None]
    names = sorted({name for match in matched for name in match.components})
    columns: dict[str, Any] = {name: theirs[name] for name in ("window", "trajectory_id", "agent_id", "step")}
    columns |= {"state": [match.state for match in matched], "worth": np.nan}
    columns |= {
        name: pd.Series([_nan(match.components.get(name)) for match in matched], theirs.index) for name in names
    }
    columns |= {"reward": pd.Series([_nan(match.reward) for match in matched], theirs.index, dtype="float64")}
    columns |= {"final": [match.state != "pending" for match in matched]}
    imported = pd.DataFrame(columns, index=theirs.index)
    if scores.empty:
        return imported
    return pd.concat([scores, imported]).reindex(steps.index)


def _nan(value: float | None) -> float:
    return np.nan if value is None else float(value)
