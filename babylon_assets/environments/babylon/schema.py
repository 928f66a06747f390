"""Which of the game's tables and columns are read, which of them must be there, and what each other one is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from babylon_assets.domain.errors import SourceError
from babylon_assets.environments.babylon.rules import BABYLON, GameRules


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that is read.

    Attributes:
        columns: needed wherever the table is there.
        extra: columns that are read where they are there.
        cost: what is lost without the table; empty: it is required.
    """

    columns: tuple[str, ...]
    extra: tuple[str, ...] = ()
    cost: str = ""


@dataclass(frozen=True, slots=True)
class RecordedGame:
    """A game that leaves this record: its rules, and the tables that are read of it."""

    name: str
    rules: GameRules
    tables: Mapping[str, SourceTable]


TRAJECTORIES = SourceTable(
    (
        *("trajectoryId", "agentId", "windowId", "scenarioId", "startTime", "endTime", "stepsJson", "finalStatus"),
        *("finalBalance", "finalPnL", "isTrainingData", "isEvaluation", "updatedAt"),
    ),
    ("archetype", "npcRole", "arcPhase", "packId", "metadataJson", "createdAt"),
)
AGENT_TRADE = SourceTable(
    (
        *("id", "agentUserId", "marketType", "marketId", "ticker", "action", "side", "amount", "price", "pnl"),
        "executedAt",
    )
)
STOCK_PRICE = SourceTable(("id", "organizationId", "price", "timestamp"))
PREDICTION_PRICES = SourceTable(("id", "marketId", "yesPrice", "noPrice", "createdAt"))
MARKET = SourceTable(("id", "resolved", "resolution", "endDate", "updatedAt"), ("question",))
PERP_SNAPSHOT = SourceTable(
    ("ticker", "organizationId"), cost="tickers are found by the companies' own names and by positions alone"
)
AGENT_CONFIG = SourceTable(
    ("userId",),
    ("team", "alignment", "modelTier", "planningHorizon", "riskTolerance"),
    cost="the agents' teams are not known",
)
REWARD_JUDGMENTS = SourceTable(
    ("id", "trajectoryId", "judgeModel", "judgeVersion", "overallScore", "judgedAt"),
    ("componentScoresJson",),
    cost="the scorer game_judgment knows nothing",
)
CALL_LOGS = SourceTable(
    (
        *("trajectoryId", "stepId", "callId", "timestamp", "model", "purpose", "systemPrompt", "userPrompt"),
        *("messagesJson", "response", "temperature"),
    ),
    cost="calls that no step holds are not known",
)
BABYLON_GAME = RecordedGame(
    "babylon",
    BABYLON,
    {
        "trajectories": TRAJECTORIES,
        "User": SourceTable(("id", "isTest", "isBanned")),
        "AgentTrade": AGENT_TRADE,
        "Market": MARKET,
        "Organization": SourceTable(("id", "name"), ("ticker",)),
        "StockPrice": STOCK_PRICE,
        "PredictionPriceHistory": PREDICTION_PRICES,
        "market_outcomes": SourceTable(
            ("id", "windowId", "stockTicker", "changePercent", "predictionMarketId", "outcome", "createdAt")
        ),
        "PerpMarketSnapshot": PERP_SNAPSHOT,
        "UserAgentConfig": AGENT_CONFIG,
        "reward_judgments": REWARD_JUDGMENTS,
        "llm_call_logs": CALL_LOGS,
    },
)
_COLUMNS_THERE = """
    SELECT c.relname, a.attname, has_column_privilege(c.oid, a.attnum, 'SELECT') FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""


@dataclass(frozen=True, slots=True)
class Schema:
    """What is there of a game's tables: for each column whether it may be read."""

    game: RecordedGame
    columns: Mapping[str, Mapping[str, bool]]

    def has(self, table: str, *columns: str) -> bool:
        """Whether a table, with these columns and those that it needs, is there and may be read."""
        there, needed = self.columns.get(table, {}), self.game.tables.get(table)
        return needed is not None and all(there.get(name, False) for name in (*needed.columns, *columns))

    @property
    def has_clock(self) -> bool:
        """Whether the record says in which zone the game's own database session fills times."""
        return self.game.rules.trades_follow_steps and self.has("trajectories", "createdAt")

    def faults(self) -> list[str]:
        """Each required table and column that is missing or may not be read."""
        return [
            fault
            for table, needed in self.game.tables.items()
            if not needed.cost
            for fault in _faults(table, needed.columns, self.columns.get(table))
        ]

    def losses(self) -> list[str]:
        """What is lost because a table that is not required is not there, or may not be read."""
        return [
            f"without {table} {needed.cost}"
            for table, needed in self.game.tables.items()
            if needed.cost and not self.has(table)
        ]


def look_at_schema(conn: psycopg.Connection[Any], game: RecordedGame = BABYLON_GAME) -> Schema:
    """What is there of a game's tables."""
    columns: dict[str, dict[str, bool]] = {}
    for table, column, readable in conn.execute(_COLUMNS_THERE, [list(game.tables)]).fetchall():
        columns.setdefault(table, {})[column] = readable
    return Schema(game, columns)


def check_tables(conn: psycopg.Connection[Any], game: RecordedGame = BABYLON_GAME) -> Schema:
    """Check that every required table and column is there and may be read.

    Raises:
        SourceError: it names each that is missing or forbidden, and says what to do.
    """
    schema = look_at_schema(conn, game)
    if missing := schema.faults():
        raise SourceError(
            f"the database lacks what is read of the game: {'; '.join(missing)}. "
            "Point DATABASE_URL at the game's database and grant its role SELECT on these tables."
        )
    return schema


def _faults(table: str, columns: tuple[str, ...], readable: Mapping[str, bool] | None) -> list[str]:
    if readable is None:
        return [f'table "{table}" is missing']
    absent = [f'"{table}"."{column}" is missing' for column in columns if column not in readable]
    return absent + [f'"{table}"."{column}" may not be read' for column in columns if readable.get(column) is False]
