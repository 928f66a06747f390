"""Steps of trajectories as a frame, which is what scoring works on: one row per step.

A column for each field of a step, and one for each detail that the environment declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import pandas as pd

from babylon_assets.domain.trajectories import StepFacts


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


FACT_COLUMNS: tuple[str, ...] = tuple(name for name in StepFacts.__struct_fields__ if name != "detail")
#: `StepFacts` as a tuple, which a column is made of in a tenth of the time.
FactRow = tuple[int, int, int, str, bool | None, str | None, bool, dict[str, Any]]
#: Columns that every environment has; the columns of its details follow.
STEP_COLUMNS: tuple[str, ...] = ("window", "trajectory_id", "agent_id", *FACT_COLUMNS)
_INTEGERS = ("step", "timestamp_ms", "moment_ms")
_NO_DETAIL: Mapping[str, str] = {}


def steps_frame(records: Iterable[Episode], detail: Mapping[str, str] = _NO_DETAIL) -> pd.DataFrame:
    """One row per step of the records, in their order, with `STEP_COLUMNS` and the columns of `detail`."""
    records = list(records)
    owners = [(record.window, record.trajectory_id, record.agent_id, len(record.facts)) for record in records]
    return facts_frame(owners, [_FACTS(fact) for record in records for fact in record.facts], detail)


def facts_frame(
    owners: Sequence[tuple[str, str, str, int]], facts: Sequence[FactRow], detail: Mapping[str, str] = _NO_DETAIL
) -> pd.DataFrame:
    """As `steps_frame`, of facts as tuples.

    Args:
        owners: window, trajectory id, agent id and number of steps of each record, in the order of the facts.
        detail: the environment's own columns by pandas dtype; what a step does not say is NaN or None.
    """
    kinds = {**{name: _dtype(name) for name in STEP_COLUMNS}, **detail}
    if not facts:
        return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in kinds.items()})
    counts = [owner[3] for owner in owners]
    keys = dict(zip(STEP_COLUMNS, zip(*owners, strict=True), strict=False))
    columns = {name: np.repeat(_objects(keys[name]), counts) for name in ("window", "trajectory_id", "agent_id")}
    *plain, details = zip(*facts, strict=True)
    row = dict(zip(FACT_COLUMNS, plain, strict=True)) | {name: [own.get(name) for own in details] for name in detail}
    for name, values in row.items():
        columns[name] = _objects(values) if kinds[name] == "object" else np.array(values, dtype=kinds[name])
    return pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()})


_FACTS = attrgetter(*FACT_COLUMNS, "detail")


def _objects(values: Sequence[object]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _dtype(column: str) -> str:
    if column in _INTEGERS:
        return "int64"
    return "bool" if column == "invalid" else "object"
