"""Steps of trajectories as a frame, which is what scoring works on: one row per step.

What a step is, `domain.trajectories` says; what is made of the frame, `environments.babylon.outcomes` and
`domain.rewards`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import pandas as pd

from babylon_assets.domain.trajectories import MarketType, Side, StepFacts


class Episode(Protocol):
    """What `steps_frame` needs of a record."""

    @property
    def window(self) -> str: ...
    @property
    def trajectory_id(self) -> str: ...
    @property
    def agent_id(self) -> str: ...
    @property
    def facts(self) -> list[StepFacts]: ...


FACT_COLUMNS: tuple[str, ...] = StepFacts.__struct_fields__
#: `StepFacts` as a tuple, which a column is made of in a tenth of the time.
FactRow = tuple[
    int,
    int,
    int,
    float | None,
    float | None,
    str,
    MarketType | None,
    str | None,
    str | None,
    Side | None,
    float | None,
    bool | None,
    str | None,
    bool,
]
STEP_COLUMNS: tuple[str, ...] = ("window", "trajectory_id", "agent_id", *FACT_COLUMNS)
_NUMBERS = ("balance", "pnl", "amount")
_INTEGERS = ("step", "timestamp_ms", "moment_ms")


def steps_frame(records: Iterable[Episode]) -> pd.DataFrame:
    """One row per step of the records, in their order, with `STEP_COLUMNS`; an unknown number is NaN."""
    records = list(records)
    owners = [(record.window, record.trajectory_id, record.agent_id, len(record.facts)) for record in records]
    return facts_frame(owners, [_FACTS(fact) for record in records for fact in record.facts])


def facts_frame(owners: Sequence[tuple[str, str, str, int]], facts: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """As `steps_frame`, of facts as tuples of `FACT_COLUMNS`.

    Args:
        owners: window, trajectory id, agent id and number of steps of each record, in the order of the facts.
    """
    if not facts:
        return pd.DataFrame({name: pd.Series([], dtype=_dtype(name)) for name in STEP_COLUMNS})
    counts = [owner[3] for owner in owners]
    keys = dict(zip(STEP_COLUMNS, zip(*owners, strict=True), strict=False))
    columns = {name: np.repeat(_objects(keys[name]), counts) for name in ("window", "trajectory_id", "agent_id")}
    for name, values in zip(FACT_COLUMNS, zip(*facts, strict=True), strict=True):
        columns[name] = _objects(values) if _dtype(name) == "object" else np.array(values, dtype=_dtype(name))
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


_FACTS = attrgetter(*FACT_COLUMNS)


def _objects(values: Sequence[object]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _dtype(column: str) -> str:
    if column in _NUMBERS:
        return "float64"
    if column in _INTEGERS:
        return "int64"
    return "bool" if column == "invalid" else "object"
