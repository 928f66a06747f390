"""Trajectories as the rest of the product sees them: the types that every other module uses.

A record keeps apart what the policy saw and said (`RawSample`) and what the game reports about each step
(`StepFacts`). Results of an action have no place in either: what a trade turned out to be worth lives in
`core.outcomes`. How a row of the game becomes a record is in `core.decoding`; nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Protocol

import msgspec
import pandas as pd

Shape = Literal["live", "full", "logger"]
MarketType = Literal["prediction", "perp"]
Side = Literal["yes", "no", "long", "short"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation: `role` is system, user, assistant or tool."""

    role: str
    content: str


class RawSample(msgspec.Struct, frozen=True, gc=False):
    """One call of purpose `action`, exactly as the policy saw and answered it.

    Attributes:
        step, call: number of the step in the trajectory, position of the call within the step.
        call_id: the id under which the answer was recorded when it was sampled, if the game kept it.
        model: the model's name as the game wrote it; `<model>@<step>` for one of our policies.
        timestamp_ms: epoch milliseconds of the call, if known.
        messages: the conversation up to where the answer begins.
    """

    step: int
    call: int
    call_id: str | None
    model: str
    temperature: float | None
    timestamp_ms: int | None
    messages: list[Message]
    response: str


class StepFacts(msgspec.Struct, frozen=True, gc=False):
    """What the game reports about one step, before anything is known of how it turned out.

    Attributes:
        timestamp_ms, moment_ms: epoch milliseconds of the step, and of the state of the market that it saw.
        balance, pnl: the agent's balance and lifetime P&L in virtual dollars before the action.
        action_type: the game's name of the action; an open set.
        market_type, market_id, ticker, side: what a trading action was about; None where the game does not
            say.
        amount: stake as the game wrote it, in virtual dollars.
        invalid: the action could not be carried out. It is the agent's doing: scored low, never quarantined.
    """

    step: int
    timestamp_ms: int
    moment_ms: int
    balance: float | None
    pnl: float | None
    action_type: str
    market_type: MarketType | None
    market_id: str | None
    ticker: str | None
    side: Side | None
    amount: float | None
    success: bool | None
    error: str | None
    invalid: bool


class TrajectoryRecord(msgspec.Struct, frozen=True, gc=False):
    """One episode of one agent in one window; times are aware UTC, the hash is that of the source row."""

    window: str
    trajectory_id: str
    agent_id: str
    scenario_id: str | None
    shape: Shape
    start_time: datetime
    end_time: datetime
    final_status: str
    final_balance: float | None
    final_pnl: float | None
    content_hash: str
    samples: list[RawSample]
    facts: list[StepFacts]


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


class Quarantined(msgspec.Struct, frozen=True, gc=False):
    """A row that cannot be read: why, where in it, and the hash of the row as it was."""

    window: str
    trajectory_id: str
    reason: str
    place: str
    row_hash: str


def instruments(record: TrajectoryRecord) -> list[str]:
    """The prediction markets and tickers that the steps of a record name, each once, sorted."""
    return sorted({name for fact in record.facts for name in (fact.market_id, fact.ticker) if name is not None})


FACT_COLUMNS: tuple[str, ...] = StepFacts.__struct_fields__
STEP_COLUMNS: tuple[str, ...] = ("window", "trajectory_id", "agent_id", *FACT_COLUMNS)
_NUMBERS = ("balance", "pnl", "amount")
_INTEGERS = ("step", "timestamp_ms", "moment_ms")


def steps_frame(records: Iterable[Episode]) -> pd.DataFrame:
    """One row per step of the records, in their order, with `STEP_COLUMNS`; an unknown number is NaN."""
    columns: dict[str, list[object]] = {name: [] for name in STEP_COLUMNS}
    owners = [(record, len(record.facts)) for record in records]
    for name in ("window", "trajectory_id", "agent_id"):
        columns[name] = [getattr(record, name) for record, count in owners for _ in range(count)]
    for name in FACT_COLUMNS:
        columns[name] = [getattr(fact, name) for record, _ in owners for fact in record.facts]
    return pd.DataFrame({name: pd.Series(values, dtype=_dtype(name)) for name, values in columns.items()})


def _dtype(column: str) -> str:
    if column in _NUMBERS:
        return "float64"
    if column in _INTEGERS:
        return "int64"
    return "bool" if column == "invalid" else "object"
