"""What a report says: plain records, with the words of the ledger. Who reads them from the tables is `ledger.overview`.

Times are aware, in UTC. Texts are as they were found, hostile ones included: `report.rendering` makes them harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from babylon_assets.domain.late_data import CHANGED, beside
from babylon_assets.domain.verdict_table import VerdictRow

#: A window that is over for longer than this and not finished is overdue: the game's last rows come within minutes, and
#: training takes seconds to minutes.
OVERDUE_AFTER = timedelta(hours=2)
#: More of a window's rows in quarantine than this needs a person; the asset's check goes by it as well.
MOST_IN_QUARANTINE = 0.05
#: A hosted job without a sign of life for longer than this is named.
HOSTED_SILENT_AFTER = timedelta(minutes=60)
#: Checkpoints of the small model take some MB each; PostgreSQL stops writing when its disk is full.
LEAST_DISK_GIB = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSummary:
    """An hour of the game.

    Attributes:
        state: open, thin, ready, trained, skipped or failed.
        reward: mean reward of its samples; None when none is known.
        references: what other policies would have earned on the same boards, by name.
        policy, parent: names of the checkpoint that came of it and of the one it was trained from.
        rejected: what became of its checkpoint, with the reason, where the chain does not go on from it.
        trained_on: how many tokens it was trained on, and of how many where not on all; None for one that was not.
        ended_early: why it was not trained on all of its tokens; empty where it was.
        quarantined: rows of it that could not be read.
        recorded: samples whose call was recorded here.
        understood, unknown_words, understanding: as of the window's row.
    """

    id: str
    state: str
    ends: datetime
    trajectories: int = 0
    agents: int = 0
    samples: int = 0
    trained_on: str | None = None
    reward: float | None = None
    deviation: float | None = None
    references: Mapping[str, float] | None = None
    policy: str | None = None
    parent: str | None = None
    reason: str | None = None
    rejected: str | None = None
    ended_early: str = ""
    quarantined: int = 0
    recorded: int | None = None
    understood: float | None = None
    unknown_words: str | None = None
    understanding: Mapping[str, int] | None = None

    @property
    def changed_late(self) -> bool:
        """Whether its data changed after it was trained, so that a branch could be trained beside it."""
        return (self.reason or "").startswith(CHANGED) and (self.reason or "").endswith(beside(self.id))

    @property
    def was_passed(self) -> bool:
        """Whether it was skipped because a later window was trained first; nothing has to be done about that."""
        return self.state == "skipped" and (self.reason or "").endswith(beside(self.id))

    @property
    def own_reason(self) -> str:
        """The reason without what is said below the table of every window whose data changed after training."""
        own = (self.reason or "").removesuffix(f"; {beside(self.id)}").removeprefix(f"{CHANGED}; ")
        return own.replace(f"{CHANGED}, ", "changed ", 1)

    @property
    def rows_left_out(self) -> str:
        """The rows of it that are not read, by reason; empty where all are."""
        counts = (self.understanding or {}).items()
        named = {name.removeprefix("left out: "): rows for name, rows in counts if name.startswith("left out: ")}
        return ", ".join(f"{why}: {rows}" for why, rows in named.items())

    @property
    def quarantined_share(self) -> float:
        """Share of its rows that are in quarantine."""
        return self.quarantined / max(1, self.trajectories + self.quarantined)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """A checkpoint under its name, such as `babylon-agent@3`."""

    name: str
    window: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """An attempt to train that has not ended, or the last one of a window, which failed.

    Attributes:
        silent_after: without a sign of life for longer than this, something is wrong with it.
    """

    window: str
    chain: str
    state: str
    backend: str | None
    started_at: datetime
    heartbeat: datetime
    silent_after: timedelta = HOSTED_SILENT_AFTER
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionSummary:
    """A promotion or a rollback; `window` is the hour that the policy now served was trained on."""

    kind: str
    before: str | None
    after: str | None
    window: str | None
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictSummary:
    """What the gate said of a checkpoint last: the sentence, and a row for each rule."""

    policy: str
    window: str | None
    passed: bool
    why: str
    at: datetime
    rows: Sequence[VerdictRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSummary:
    """A measurement of a policy that came to a value, with the interval that it lies in.

    Attributes:
        window: whose data it was measured on; None for a measurement that is the same for all windows.
    """

    policy: str
    window: str | None = None
    evaluation: str
    value: float
    low: float | None
    high: float | None
    baseline: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSummary:
    """The rows that could not be read for one reason, with one of them."""

    reason: str
    rows: int
    windows: int
    newest: datetime
    trajectory: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptiedWindow:
    """A window with a dataset that held answers of a forgotten agent; whether it was frozen again without them."""

    window: str
    frozen_again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the attempts on one backend used; dollars are estimates where the service names none."""

    backend: str
    jobs: int
    seconds: float
    tokens: int
    usd: float
    usd_today: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the page shows.

    Attributes:
        windows: oldest first, those that no run has looked at included.
        failed: of each window that is not trained, its last attempt where that failed.
        promotions, evaluations, quarantine: newest or largest first.
        emptied: the windows that forgotten agents were in, newest first.
        samples: how many samples of the datasets trained as what, and why others did not (`skip: <why>`).
        odd_ids: rows of the game whose windowId is no window, by that id.
        guides: pages of docs/incidents by their names without ending, for those that are in reach.
        ui: address of Dagster's UI, which the windows are linked to; None: they are not.
        free_gib: free space where checkpoints lie; None when it is not known.
    """

    chain: str
    place: str
    made_at: datetime
    windows: Sequence[WindowSummary] = ()
    head: PolicySummary | None = None
    promoted: PolicySummary | None = None
    running: Sequence[JobSummary] = ()
    failed: Sequence[JobSummary] = ()
    promotions: Sequence[PromotionSummary] = ()
    verdict: VerdictSummary | None = None
    evaluations: Sequence[EvaluationSummary] = ()
    quarantine: Sequence[QuarantineSummary] = ()
    emptied: Sequence[EmptiedWindow] = ()
    costs: Sequence[Cost] = ()
    samples: Mapping[str, int] | None = None
    odd_ids: Mapping[str, int] | None = None
    guides: Mapping[str, str] | None = None
    ui: str | None = None
    free_gib: float | None = None

    @property
    def overdue(self) -> list[WindowSummary]:
        """Windows that are over for OVERDUE_AFTER and that nothing has become of yet.

        A window that is in training is none, nor are those after it: they are trained in their order.
        """
        alive = [job.window for job in self.running if self.made_at - job.heartbeat <= job.silent_after]
        return [
            window
            for window in self.windows
            if window.state in ("open", "ready")
            and self.made_at - window.ends > OVERDUE_AFTER
            and not any(window.id >= training for training in alive)
        ]
