"""The Babylon game of November 2025 as an environment: its tables are read as Prisma made them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import pandas as pd

from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.evaluations import BenchmarkResult
from babylon_assets.domain.llm_judge import JudgeScore
from babylon_assets.domain.rewards import Scorer
from babylon_assets.domain.trajectories import Quarantined, StepFacts, TrajectoryRecord
from babylon_assets.environments.babylon import (
    benchmark_results,
    game_record,
    outcome_tables,
    presence,
    reward_judgments,
    training_requests,
    writeback,
)
from babylon_assets.environments.babylon.answer_reader import GameAnswers
from babylon_assets.environments.babylon.asset_notes import ASSET_NOTES
from babylon_assets.environments.babylon.details import DETAIL, RESULT_KEYS
from babylon_assets.environments.babylon.instruments import cut, read_questions
from babylon_assets.environments.babylon.outcomes import OutcomeTables, trade_worth
from babylon_assets.environments.babylon.rights import missing_rights
from babylon_assets.environments.babylon.rules import GameRules
from babylon_assets.environments.babylon.schema import BABYLON_GAME, Schema, check_tables, look_at_schema
from babylon_assets.environments.babylon.scorers import GameJudgmentScorer, HeuristicScorer, JudgmentPartScorer
from babylon_assets.environments.babylon.snapshot_prompts import SnapshotPrompts
from babylon_assets.environments.babylon.words import comparable_kind
from babylon_assets.environments.base import (
    AnswerReader,
    BaseEnvironment,
    Connection,
    DeployedModel,
    Presence,
    RequestQueue,
    SnapshotBenchmark,
    SourceWindow,
    TrainingWish,
    WriteBack,
)
from babylon_assets.environments.snapshot_questions import SnapshotReader


class BabylonEnvironment(BaseEnvironment):
    """The game's tables, the worth of its trades, and what may be written into it."""

    name = "babylon"
    detail = DETAIL
    result_keys = RESULT_KEYS
    tables: Mapping[str, str] = {
        "trajectories": """
The game's table `trajectories`: what its agents saw, answered and did, an episode a row. A row belongs to the hour of
its `windowId`, or of its end where it has none; where windows are no hours, to the one of its end.

Written by the game, read by `raw_trajectories`. Observed when a sensor finds the window to be run: how many rows of how
many agents there are, when the newest was written, and by how much the window is overdue, if nothing of it was read.
""",
        "outcomes": """
What became of the trades: the game's tables `market_outcomes` and `Market`, beside its prices and its agents' trades.

Written by the game, hours or days after the window as well, and read by `scored_trajectories`. Observed when a sensor
finds the window to be run: rows of `market_outcomes`, markets that end in the window and those of them that are
resolved, and when the newest was written.
""",
    }
    source_group = "game"
    asset_notes = ASSET_NOTES
    #: Prices hardly move within five minutes, and agents are asked about every five.
    state_seconds = 300.0
    trajectory_is_tick = True
    game = BABYLON_GAME
    _questions: Mapping[str, str] = MappingProxyType({})
    _odd: Sequence[str] | None = None
    _seen: Schema | None = None

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        parts = {name: JudgmentPartScorer(name) for name in reward_judgments.PARTS}
        return {"heuristic": HeuristicScorer(), "game_judgment": GameJudgmentScorer(), **parts}

    @property
    def snapshots(self) -> SnapshotBenchmark | None:
        from babylon_assets.environments.simulated.snapshots import Snapshots

        return Snapshots()

    @property
    def snapshot_reader(self) -> SnapshotReader | None:
        return SnapshotPrompts(self.game.rules, self.settings.rewards.perp_full_scale_percent)

    @property
    def answers(self) -> AnswerReader | None:
        return GameAnswers(self)

    @property
    def write_back(self) -> WriteBack | None:
        return _WriteBack(self.game.rules)

    @property
    def requests(self) -> RequestQueue | None:
        return _Requests()

    def has_record(self, conn: Connection) -> bool:
        return game_record.has_game(conn)

    def check(self, conn: Connection) -> None:
        self._seen = check_tables(conn, self.game)

    def missing_rights(self, conn: Connection) -> Sequence[str]:
        return missing_rights(conn, self.settings)

    def list_windows(self, conn: Connection, since: str | None = None) -> list[SourceWindow]:
        return game_record.list_windows(conn, since, windows=self.settings.windows)

    def presence(self, conn: Connection, windows: Sequence[str]) -> list[Presence]:
        notes = self.game.rules.notes_are_outcomes
        return presence.presence(conn, windows, self.settings.windows, notes=notes)

    def fingerprint(self, conn: Connection, window: str, references: Sequence[str]) -> str:
        return game_record.fingerprint(
            conn,
            window,
            include_test=self.settings.datasets.include_test_users,
            include_banned=self.settings.datasets.include_banned_users,
            horizon_minutes=self.settings.rewards.perp_horizon_minutes,
            instruments=references,
            odd=self._odd_ids(conn),
            windows=self.settings.windows,
            schema=self.schema(conn),
            judged="game_judgment" in self.settings.rewards.weights,
        )

    def read_window(self, conn: Connection, window: str) -> Iterator[TrajectoryRecord | Quarantined]:
        return game_record.read_window(
            conn,
            window,
            include_test=self.settings.datasets.include_test_users,
            include_banned=self.settings.datasets.include_banned_users,
            odd=self._odd_ids(conn),
            windows=self.settings.windows,
            schema=self.schema(conn),
        )

    def value_steps(
        self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None
    ) -> pd.DataFrame:
        known = self.read_outcomes(conn, window, steps)
        valued = trade_worth(
            steps,
            known,
            as_of=as_of,
            horizon_minutes=self.settings.rewards.perp_horizon_minutes,
            full_scale_percent=self.settings.rewards.perp_full_scale_percent,
            rules=self.game.rules,
        )
        if not self.schema(conn).has("reward_judgments"):
            return valued
        has_parts = self.schema(conn).has("reward_judgments", "componentScoresJson")
        return valued.join(reward_judgments.read_judgments(conn, steps, as_of, has_parts=has_parts))

    def read_outcomes(self, conn: Connection, window: str, steps: pd.DataFrame) -> OutcomeTables:
        """What the record says of the markets, the prices and the trades of a window's steps."""
        return outcome_tables.read_outcomes(
            conn,
            window,
            steps,
            horizon_minutes=self.settings.rewards.perp_horizon_minutes,
            windows=self.settings.windows,
            schema=self.schema(conn),
        )

    def name_market(self, market_id: str) -> str:
        """What a person calls a prediction market: its question, where it was looked up and is there, else its id."""
        return self._questions.get(market_id) or cut(market_id)

    def look_up_names(self, conn: Connection, steps: Iterable[StepFacts]) -> None:
        named = {step.detail["market_id"] for step in steps if step.detail.get("market_id")}
        unknown = [market for market in named if self.name_market(market) == cut(market)]
        if unknown and self.schema(conn).has("Market", "question"):
            self._questions = {**self._questions, **read_questions(conn, unknown, self.schema(conn))}

    def describe_action(self, step: StepFacts) -> str:
        detail = step.detail
        amount, market = detail.get("amount"), detail.get("market_id")
        parts = (
            step.action_type,
            detail.get("side"),
            detail.get("ticker") or (market and self.name_market(market)),
            None if amount is None else f"{amount:g}",
            "invalid" if step.invalid else None,
        )
        return " ".join(part for part in parts if part)

    def action_kind(self, step: StepFacts) -> str:
        return comparable_kind(step.action_type)

    def agent_class(self, record: TrajectoryRecord) -> str:
        return record.attributes.get("archetype", "")

    def describe_record(self, conn: Connection) -> str:
        text = self._describe_game(conn) + "".join(f"; {loss}" for loss in self.list_losses(conn))
        row = conn.execute("SELECT has_table_privilege('public.trajectories', 'INSERT, UPDATE, DELETE')").fetchone()
        writes = self.settings.gate.write_trained_models or self.settings.judge.write_reward_judgments
        if row and row[0] and not writes and self.settings.database.url:
            text += "; the role may write there, which is not needed: SELECT is enough"
        if odd := self.misplaced_rows(conn):
            text += (
                f"; {format_plural(sum(odd.values()), 'row')} with a windowId that is no window, such as "
                f"{next(iter(odd))!r}, placed by endTime"
            )
        return text

    def list_losses(self, conn: Connection) -> list[str]:
        """What is lost because a table that the game may have is not there."""
        return self.schema(conn).losses()

    def misplaced_rows(self, conn: Connection) -> Mapping[str, int]:
        return game_record.count_odd_ids(conn, windows=self.settings.windows)

    def count_left_out(self, conn: Connection, window: str) -> Mapping[str, int]:
        return game_record.count_left_out(
            conn,
            window,
            include_test=self.settings.datasets.include_test_users,
            include_banned=self.settings.datasets.include_banned_users,
            odd=self._odd_ids(conn),
            windows=self.settings.windows,
        )

    def _describe_game(self, conn: Connection) -> str:
        """What shows that the database holds this game, or another one."""
        from babylon_assets.environments.feed.game import find_game

        game = find_game(conn) if self.settings.database.url else None
        if game is None:
            return ""
        other = f"; the record looks like {game.name}'s: set ENVIRONMENT=auto" if game.name != self.name else ""
        return f"; {game.evidence}{other}"

    def schema(self, conn: Connection) -> Schema:
        """What is there of the game's tables, looked up once: an environment is opened for each run."""
        if self._seen is None:
            self._seen = look_at_schema(conn, self.game)
        return self._seen

    def _odd_ids(self, conn: Connection) -> Sequence[str]:
        """The windowIds that are no window's, looked up once: an environment is opened for each run."""
        if self._odd is None:
            self._odd = game_record.odd_ids(conn, windows=self.settings.windows)
        return self._odd


class _WriteBack:
    """The game's trained_models, trajectories and reward_judgments."""

    def __init__(self, rules: GameRules) -> None:
        self._rules = rules

    def deploy(self, conn: Connection, model: DeployedModel) -> None:
        writeback.deploy_model(conn, model, may_roll_back=self._rules.knows_rollbacks)

    def mark_used(self, conn: Connection, trajectories: Sequence[str], batch: str) -> None:
        writeback.mark_used(conn, trajectories, batch)

    def write_benchmark(self, conn: Connection, result: BenchmarkResult) -> None:
        benchmark_results.write_benchmark(conn, result)

    def write_judgments(
        self, conn: Connection, window: str, scores: Sequence[JudgeScore], *, model: str, version: str, rubric: str
    ) -> None:
        reward_judgments.write_judgments(conn, window, scores, model=model, version=version, rubric=rubric)


class _Requests:
    """The game's training_batches."""

    def claim(self, conn: Connection) -> TrainingWish | None:
        return training_requests.claim(conn)

    def claimed(self, conn: Connection, most: int) -> list[TrainingWish]:
        return training_requests.claimed(conn, most)

    def take_up(self, conn: Connection, wish: TrainingWish) -> bool:
        return training_requests.take_up(conn, wish)

    def complete(self, conn: Connection, wish_id: str, loss: float | None, policy: str) -> None:
        training_requests.complete(conn, wish_id, loss, policy)

    def fail(self, conn: Connection, wish_id: str, reason: str) -> None:
        training_requests.fail(conn, wish_id, reason)
