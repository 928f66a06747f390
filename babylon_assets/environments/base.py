"""The first seam: what an environment is to the rest of the product, and what it may leave out.

An environment is where agents act and leave a record in PostgreSQL. It knows the record's tables, fields and words; the
rest of the product knows windows, trajectories, steps and rewards. `BaseEnvironment` has the defaults, so that an
environment of your own says where its rows are, what a step was worth, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from babylon_assets.domain.evaluations import BenchmarkResult, PolicyEvaluation
from babylon_assets.domain.policies import Policy
from babylon_assets.domain.rewards import Scorer
from babylon_assets.domain.trajectories import Message, Quarantined, StepFacts, TrajectoryRecord
from babylon_assets.environments.snapshot_questions import SnapshotReader

if TYPE_CHECKING:
    import pandas as pd

    from babylon_assets.config.settings import Settings
    from babylon_assets.domain.llm_judge import JudgeScore

Connection = psycopg.Connection[Any]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """A window that the environment has trajectories of: how many, and of how many agents, before any is left out."""

    window: str
    agents: int
    trajectories: int


@dataclass(frozen=True, slots=True)
class Presence:
    """What there is of one window in the environment's tables, in numbers.

    Attributes:
        rows, agents: trajectories, and the agents that they are of, before any is left out.
        rows_newest, outcomes_newest: when the newest row, and the newest outcome, was written; None without any.
        outcomes: how many outcomes there are, by kind.
    """

    window: str
    rows: int
    agents: int
    rows_newest: datetime | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    outcomes_newest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedModel:
    """The promoted checkpoint as an environment is told of it.

    Attributes:
        checkpoint_id: of the ledger.
        inference_name: the name under which agents ask for it, such as `babylon-agent@3`.
        benchmark_score, avg_reward: None where they were not measured.
    """

    checkpoint_id: str
    chain: str
    step: int
    base_model: str
    batch: str | None
    inference_name: str
    benchmark_score: float | None
    avg_reward: float | None
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingWish:
    """What an environment asks to be trained: the id of its request, the window, and since when it is claimed."""

    id: str
    window: str | None
    started_at: datetime | None


class Benchmark(Protocol):
    """A measurement that the environment itself offers: the gate's main evidence where there is one.

    `name` and `version` are what a measurement is kept under; the version names everything that decides its numbers.
    """

    name: str

    def version(self, seeds: int) -> str: ...
    def evaluate(self, policy: Policy, seeds: int) -> PolicyEvaluation:
        """Ask a policy about the same `seeds` cases as every other policy, with the same random numbers."""
        ...


class SnapshotBenchmark(Protocol):
    """Recorded games in files, which a policy plays against what is known to have come of them."""

    def decode(self, content: bytes) -> Any:
        """A snapshot from a file's content; it has an `id`.

        Raises:
            PermanentError: the content is no snapshot.
        """
        ...

    def version(self, snapshot: Any, seeds: Sequence[int]) -> str: ...
    def play(self, policy: Policy, snapshot: Any, seeds: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
        """Play a snapshot once per seed: the P&L of each run in dollars, and figures over all runs."""
        ...


class AnswerReader(Protocol):
    """What answers to recorded prompts would have done, and been worth: how a policy is measured on its own ground.

    `version` names the rules by which answers are read and valued; other rules are another version.
    """

    version: str

    def parse(self, text: str, messages: Sequence[Message], step: StepFacts) -> StepFacts:
        """The action that an answer asks for, in the situation of a recorded step.

        Args:
            messages: the prompt that was answered.
            step: the step that the prompt was recorded for; its own action is another answer's.

        Returns:
            A step at the same time and in the same state; `invalid` where the environment could not carry it out.
        """
        ...

    def value(self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None) -> pd.DataFrame:
        """As `Environment.value_steps`, of actions that nobody carried out.

        They are valued by the record's prices and outcomes, as if they had moved no price.
        """
        ...


class WriteBack(Protocol):
    """What may be written into the environment's own tables, each behind a setting; safe to repeat."""

    def deploy(self, conn: Connection, model: DeployedModel) -> None: ...
    def mark_used(self, conn: Connection, trajectories: Sequence[str], batch: str) -> None: ...
    def write_benchmark(self, conn: Connection, result: BenchmarkResult) -> None: ...
    def write_judgments(
        self, conn: Connection, window: str, scores: Sequence[JudgeScore], *, model: str, version: str, rubric: str
    ) -> None: ...


class RequestQueue(Protocol):
    """Requests of the environment to train a window: each is claimed by one, and completed or failed."""

    def claim(self, conn: Connection) -> TrainingWish | None: ...
    def claimed(self, conn: Connection, most: int) -> list[TrainingWish]: ...
    def take_up(self, conn: Connection, wish: TrainingWish) -> bool: ...
    def complete(self, conn: Connection, wish_id: str, loss: float | None, policy: str) -> None: ...
    def fail(self, conn: Connection, wish_id: str, reason: str) -> None: ...


class Environment(Protocol):
    """Where trajectories come from, and what is good there.

    Every function takes an open connection whose session runs in UTC, and issues only SELECT; what writes is in
    `write_back` and `requests`.

    Attributes:
        name: how ENVIRONMENT names it.
        tables: what its two groups of tables are, `trajectories` and `outcomes`, for the pages in Dagster's UI.
        source_group: the group that these two are in there.
        asset_notes: what the page of an asset says of this environment alone, by the asset's name.
        detail: the columns that its steps have besides those of every step, by pandas dtype.
        result_keys: names of fields that hold what was not known when the policy answered; never in a prompt.
        state_seconds: for how long its state stays alike enough that answers to it can be compared; 0: each decision
            point is a state of its own.
        trajectory_is_tick: its trajectories are single ticks of an agent, so that later steps follow from earlier ones.
        scorers: its own scorers by name, beside `outcome` and `format`.
        benchmark: its own measurement of a policy, if it has one; `snapshots`: the same for files of its own, and
            `snapshot_reader` what asks about them in its own prompt form.
        answers: reads and values answers to recorded prompts, if that can be said of them.
        gate_asks_prompts: whether the gate measures policies by these answers.
        write_back, requests: None where nothing is written, or nobody asks.
    """

    name: str
    tables: Mapping[str, str]
    source_group: str
    asset_notes: Mapping[str, str]
    detail: Mapping[str, str]
    result_keys: tuple[str, ...]
    state_seconds: float
    trajectory_is_tick: bool
    gate_asks_prompts: bool

    @property
    def scorers(self) -> Mapping[str, Scorer]: ...
    @property
    def benchmark(self) -> Benchmark | None: ...
    @property
    def snapshots(self) -> SnapshotBenchmark | None: ...
    @property
    def snapshot_reader(self) -> SnapshotReader | None: ...
    @property
    def answers(self) -> AnswerReader | None: ...
    @property
    def write_back(self) -> WriteBack | None: ...
    @property
    def requests(self) -> RequestQueue | None: ...

    def has_record(self, conn: Connection) -> bool:
        """Whether the database holds this environment's record at all."""

    def check(self, conn: Connection) -> None:
        """Check that everything that is read is there and may be read.

        Raises:
            SourceError: it names what is missing or forbidden, and says what to do.
        """

    def list_windows(self, conn: Connection, since: str | None = None) -> list[SourceWindow]:
        """The windows that have rows, oldest first; with `since`, that one and later ones."""

    def presence(self, conn: Connection, windows: Sequence[str]) -> list[Presence]:
        """What there is of each of these windows, in their order."""

    def fingerprint(self, conn: Connection, window: str, references: Sequence[str]) -> str:
        """A hash of all that a window's trajectories and outcomes are made from; another one means other data.

        Args:
            references: what the trajectories that were read of the window refer to (`TrajectoryRecord.references`).
        """

    def read_window(self, conn: Connection, window: str) -> Iterator[TrajectoryRecord | Quarantined]:
        """Stream the rows of a window, each once; memory is bounded by the longest row.

        A row that cannot be read comes out as `Quarantined` and costs the window nothing else.
        """

    def value_steps(
        self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None
    ) -> pd.DataFrame:
        """Say for each step what its action turned out to be worth.

        Args:
            steps: one row per step with `frames.STEP_COLUMNS` and the columns of `detail`.
            as_of: what became known later is not known yet; None takes all that there is.

        Returns:
            On the index of `steps`: `worth` in [-1, 1] (NaN while it is not known) and `state`: final, pending,
            no_trade (the action is worth nothing by itself), invalid or unknown.
        """

    def describe_action(self, step: StepFacts) -> str:
        """The action of a step in a few words, for a table."""

    def look_up_names(self, conn: Connection, steps: Iterable[StepFacts]) -> None:
        """Look up by what names `describe_action` is to call what these steps name by ids, such as markets."""

    def action_kind(self, step: StepFacts) -> str:
        """The kind of a step's action: answers are compared within a kind; empty: the kind that most are of."""

    def agent_class(self, record: TrajectoryRecord) -> str:
        """The class of a trajectory's agent: answers that have no company are compared within it; empty: none."""

    def describe_record(self, conn: Connection) -> str:
        """What a person should know of the record, for `babylon doctor`; empty when there is nothing to say."""

    def missing_rights(self, conn: Connection) -> Sequence[str]:
        """A sentence for each right that the settings ask for and the role lacks, with what to do about it."""

    def count_left_out(self, conn: Connection, window: str) -> Mapping[str, int]:
        """How many rows of a window are not read, by the reason, such as `test users`."""

    def misplaced_rows(self, conn: Connection) -> Mapping[str, int]:
        """How many rows name a window that is none, by that name, most first; they are placed by their time."""

    def find_base_model(self, home: Path) -> Path | None:
        """The folder of its own small base model, if it was made before."""

    def make_base_model(
        self, home: Path, open_policy: Callable[[Path], Policy], progress: Progress | None = None
    ) -> Path | None:
        """The folder of a small base model of its own, made where it is missing; None: BASE_MODEL is needed."""


class BaseEnvironment:
    """The defaults: an environment derives from this and says `name`, `tables` and the five functions that read.

    `settings` are those of the installation.
    """

    name = ""
    tables: Mapping[str, str] = {
        "trajectories": "The environment's record of what its agents saw, answered and did.",
        "outcomes": "What became of their actions.",
    }
    source_group = "record"
    asset_notes: Mapping[str, str] = {}
    detail: Mapping[str, str] = {}
    result_keys: tuple[str, ...] = ()
    state_seconds: float = 0.0
    trajectory_is_tick: bool = False
    gate_asks_prompts = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        return {}

    @property
    def benchmark(self) -> Benchmark | None:
        return None

    @property
    def snapshots(self) -> SnapshotBenchmark | None:
        return None

    @property
    def snapshot_reader(self) -> SnapshotReader | None:
        return None

    @property
    def answers(self) -> AnswerReader | None:
        return None

    @property
    def write_back(self) -> WriteBack | None:
        return None

    @property
    def requests(self) -> RequestQueue | None:
        return None

    def presence(self, conn: Connection, windows: Sequence[str]) -> list[Presence]:
        listed = {row.window: row for row in self.list_windows(conn, min(windows))} if windows else {}
        rows = [listed.get(window) or SourceWindow(window, 0, 0) for window in windows]
        return [Presence(row.window, row.trajectories, row.agents) for row in rows]

    def list_windows(self, conn: Connection, since: str | None = None) -> list[SourceWindow]:
        raise NotImplementedError

    def describe_action(self, step: StepFacts) -> str:
        return step.action_type

    def look_up_names(self, conn: Connection, steps: Iterable[StepFacts]) -> None:
        """Nothing: ids are names."""

    def action_kind(self, step: StepFacts) -> str:
        return ""

    def agent_class(self, record: TrajectoryRecord) -> str:
        return ""

    def describe_record(self, conn: Connection) -> str:
        return ""

    def missing_rights(self, conn: Connection) -> Sequence[str]:
        return ()

    def count_left_out(self, conn: Connection, window: str) -> Mapping[str, int]:
        return {}

    def misplaced_rows(self, conn: Connection) -> Mapping[str, int]:
        return {}

    def find_base_model(self, home: Path) -> Path | None:
        return None

    def make_base_model(
        self, home: Path, open_policy: Callable[[Path], Policy], progress: Progress | None = None
    ) -> Path | None:
        return None


def read_at_one_moment(conn: Connection) -> None:
    """Let all that is read on this connection be of one moment; to be called before its first statement."""
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.read_only = True
