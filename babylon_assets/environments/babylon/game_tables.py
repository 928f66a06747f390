"""The game's tables, made and filled: for the simulated game and for tests.

Columns, types, foreign keys, indexes and missing defaults are those that the game's own migrations leave
behind, so that what works on these tables works on the game's. A real game database already has them: nothing
here is for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from babylon_assets.domain.errors import SourceError

#: Definition of each table, in the order in which foreign keys allow them to be made.
TABLES: dict[str, str] = {
    "User": """
        "id" text PRIMARY KEY, "walletAddress" text, "username" text, "displayName" text, "bio" text,
        "profileImageUrl" text, "isActor" boolean NOT NULL DEFAULT false,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL,
        "virtualBalance" numeric(18,2) NOT NULL DEFAULT 1000, "totalDeposited" numeric(18,2) NOT NULL DEFAULT
        1000, "totalWithdrawn" numeric(18,2) NOT NULL DEFAULT 0, "lifetimePnL" numeric(18,2) NOT NULL DEFAULT
        0, "reputationPoints" integer NOT NULL DEFAULT 1000, "isTest" boolean NOT NULL DEFAULT false,
        "isBanned" boolean NOT NULL DEFAULT false, "isAdmin" boolean NOT NULL DEFAULT false,
        "isAgent" boolean NOT NULL DEFAULT false, "agentSystem" text, "agentTradingStrategy" text,
        "agentPersonality" text, "agentModelTier" text NOT NULL DEFAULT 'free',
        "agentStatus" text NOT NULL DEFAULT 'idle', "agentPointsBalance" integer NOT NULL DEFAULT 0,
        "autonomousTrading" boolean NOT NULL DEFAULT false, "managedBy" text""",
    "Organization": """
        "id" text PRIMARY KEY, "name" text NOT NULL, "description" text NOT NULL, "type" text NOT NULL,
        "canBeInvolved" boolean NOT NULL DEFAULT true, "initialPrice" double precision,
        "currentPrice" double precision, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" timestamp(3) NOT NULL, "imageUrl" text""",
    "Market": """
        "id" text PRIMARY KEY, "question" text NOT NULL, "description" text, "gameId" text,
        "dayNumber" integer,
        "yesShares" numeric(18,6) NOT NULL DEFAULT 0, "noShares" numeric(18,6) NOT NULL DEFAULT 0,
        "liquidity" numeric(18,6) NOT NULL, "resolved" boolean NOT NULL DEFAULT false, "resolution" boolean,
        "endDate" timestamp(3) NOT NULL, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" timestamp(3) NOT NULL, "onChainMarketId" text, "onChainResolutionTxHash" text,
        "onChainResolved" boolean NOT NULL DEFAULT false, "oracleAddress" text""",
    "StockPrice": """
        "id" text PRIMARY KEY,
        "organizationId" text NOT NULL REFERENCES public."Organization" ("id") ON UPDATE CASCADE ON DELETE CASCADE,
        "price" double precision NOT NULL, "change" double precision NOT NULL,
        "changePercent" double precision NOT NULL,
        "timestamp" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "isSnapshot" boolean NOT NULL DEFAULT false, "openPrice" double precision, "highPrice" double
        precision, "lowPrice" double precision, "volume" double precision""",
    "PredictionPriceHistory": """
        "id" text PRIMARY KEY,
        "marketId" text NOT NULL REFERENCES public."Market" ("id") ON UPDATE CASCADE ON DELETE CASCADE,
        "yesPrice" double precision NOT NULL, "noPrice" double precision NOT NULL,
        "yesShares" numeric(24,8) NOT NULL, "noShares" numeric(24,8) NOT NULL, "liquidity" numeric(24,8) NOT
        NULL, "eventType" text NOT NULL, "source" text NOT NULL,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP""",
    "AgentTrade": """
        "id" text PRIMARY KEY, "marketType" text NOT NULL, "marketId" text, "ticker" text,
        "action" text NOT NULL,
        "side" text, "amount" double precision NOT NULL, "price" double precision NOT NULL,
        "pnl" double precision,
        "reasoning" text, "executedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "agentUserId" text NOT NULL REFERENCES public."User" ("id") ON UPDATE CASCADE ON DELETE CASCADE""",
    "trajectories": """
        "id" text PRIMARY KEY, "trajectoryId" text NOT NULL,
        "agentId" text NOT NULL REFERENCES public."User" ("id") ON UPDATE CASCADE ON DELETE CASCADE,
        "startTime" timestamp(3) NOT NULL, "endTime" timestamp(3) NOT NULL, "durationMs" integer NOT NULL,
        "windowId" varchar(50), "windowHours" integer DEFAULT 1, "episodeId" varchar(100),
        "scenarioId" varchar(100), "batchId" varchar(100), "stepsJson" text NOT NULL,
        "rewardComponentsJson" text NOT NULL, "metricsJson" text NOT NULL, "metadataJson" text NOT NULL,
        "totalReward" double precision NOT NULL, "episodeLength" integer NOT NULL,
        "finalStatus" text NOT NULL,
        "finalBalance" double precision, "finalPnL" double precision, "tradesExecuted" integer,
        "postsCreated" integer, "aiJudgeReward" double precision, "aiJudgeReasoning" text,
        "judgedAt" timestamp(3),
        "isTrainingData" boolean NOT NULL DEFAULT true, "isEvaluation" boolean NOT NULL DEFAULT false,
        "usedInTraining" boolean NOT NULL DEFAULT false, "trainedInBatch" text,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL""",
    "llm_call_logs": """
        "id" text PRIMARY KEY, "trajectoryId" text NOT NULL, "stepId" text NOT NULL, "callId" text NOT NULL,
        "timestamp" timestamp(3) NOT NULL, "latencyMs" integer, "model" text NOT NULL,
        "purpose" text NOT NULL,
        "actionType" text, "systemPrompt" text NOT NULL, "userPrompt" text NOT NULL, "messagesJson" text,
        "response" text NOT NULL, "reasoning" text, "temperature" double precision NOT NULL,
        "maxTokens" integer NOT NULL, "topP" double precision, "promptTokens" integer, "completionTokens"
        integer, "totalTokens" integer, "metadata" text, "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP""",
    "market_outcomes": """
        "id" text PRIMARY KEY, "windowId" varchar(50) NOT NULL, "stockTicker" varchar(20),
        "startPrice" numeric(10,2), "endPrice" numeric(10,2), "changePercent" numeric(5,2), "sentiment"
        varchar(20), "newsEvents" jsonb, "predictionMarketId" text, "question" text, "outcome" varchar(20),
        "finalProbability" numeric(5,4), "volume" numeric(15,2),
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP""",
    "trained_models": """
        "id" text PRIMARY KEY, "modelId" text NOT NULL, "version" text NOT NULL, "baseModel" text NOT NULL,
        "trainingBatch" text, "status" text NOT NULL DEFAULT 'training', "deployedAt" timestamp(3),
        "archivedAt" timestamp(3), "storagePath" text NOT NULL, "benchmarkScore" double precision,
        "accuracy" double precision, "avgReward" double precision, "evalMetrics" jsonb, "wandbRunId" text,
        "wandbArtifactId" text, "agentsUsing" integer NOT NULL DEFAULT 0,
        "totalInferences" integer NOT NULL DEFAULT 0,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL""",
    "training_batches": """
        "id" text PRIMARY KEY, "batchId" text NOT NULL, "scenarioId" text, "baseModel" text NOT NULL,
        "modelVersion" text NOT NULL, "trajectoryIds" text NOT NULL, "rankingsJson" text,
        "rewardsJson" text NOT NULL, "trainingLoss" double precision, "policyImprovement" double precision,
        "status" text NOT NULL DEFAULT 'pending', "error" text,
        "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "startedAt" timestamp(3),
        "completedAt" timestamp(3)""",
    "reward_judgments": """
        "id" text PRIMARY KEY, "trajectoryId" text NOT NULL, "judgeModel" text NOT NULL,
        "judgeVersion" text NOT NULL, "overallScore" double precision NOT NULL, "componentScoresJson" text,
        "rank" integer, "normalizedScore" double precision, "groupId" text, "reasoning" text NOT NULL,
        "strengthsJson" text, "weaknessesJson" text, "criteriaJson" text NOT NULL,
        "judgedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP""",
}

#: (table, columns, unique): a name's trailing ` DESC` is the order of the index.
INDEXES: tuple[tuple[str, str, bool], ...] = (
    ("User", "walletAddress", True),
    ("User", "username", True),
    ("Market", "createdAt DESC", False),
    ("Market", "gameId, dayNumber", False),
    ("Market", "onChainMarketId", False),
    ("Market", "resolved, endDate", False),
    ("StockPrice", "isSnapshot, timestamp", False),
    ("StockPrice", "organizationId, timestamp DESC", False),
    ("StockPrice", "timestamp DESC", False),
    ("PredictionPriceHistory", "marketId, createdAt DESC", False),
    ("AgentTrade", "agentUserId, executedAt DESC", False),
    ("AgentTrade", "marketType, marketId", False),
    ("AgentTrade", "ticker", False),
    ("trajectories", "trajectoryId", True),
    ("trajectories", "agentId, startTime", False),
    ("trajectories", "aiJudgeReward", False),
    ("trajectories", "isTrainingData, usedInTraining", False),
    ("trajectories", "scenarioId, createdAt", False),
    ("trajectories", "trainedInBatch", False),
    ("trajectories", "windowId, agentId", False),
    ("trajectories", "windowId", False),
    ("llm_call_logs", "callId", True),
    ("llm_call_logs", "trajectoryId", False),
    ("llm_call_logs", "stepId", False),
    ("market_outcomes", "windowId", False),
    ("trained_models", "modelId", True),
    ("training_batches", "batchId", True),
    ("reward_judgments", "trajectoryId", True),
)


def create_game_tables(conn: psycopg.Connection[Any]) -> None:
    """Create those of the game's tables that are missing in `public`; safe to repeat. Does not commit."""
    for table, columns in TABLES.items():
        conn.execute(f'CREATE TABLE IF NOT EXISTS public."{table}" ({columns})'.encode())
    for table, columns, unique in INDEXES:
        conn.execute(_index_statement(table, columns, unique).encode())


def _index_statement(table: str, columns: str, unique: bool) -> str:
    """The statement of an index, named the way the game's are: `<table>_<columns>_idx` or `_key`."""
    names = [column.removesuffix(" DESC") for column in columns.split(", ")]
    keys = ", ".join(f'"{n}"{" DESC" if f"{n} DESC" in columns else ""}' for n in names)
    name = "_".join([table, *names, "key" if unique else "idx"])
    return f'CREATE {"UNIQUE " if unique else ""}INDEX IF NOT EXISTS "{name}" ON public."{table}" ({keys})'


def copy_rows(conn: psycopg.Connection[Any], table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to one of `TABLES` by COPY; does not commit.

    Args:
        rows: a value per column name; a column that a row leaves out takes its default, one that is None is
            null. Aware times are stored as UTC. Columns of JSON take text.

    Raises:
        SourceError: the table is not one of `TABLES`.
    """
    if table not in TABLES:
        raise SourceError(f"no table {table!r} among the game's: choose one of {', '.join(TABLES)}")
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    for columns, members in alike.items():
        _copy(conn, table, columns, members)


def _copy(conn: psycopg.Connection[Any], table: str, columns: tuple[str, ...], rows: list[Mapping[str, Any]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier("public", table), names)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([_naive_utc(row[column]) for column in columns])


def _naive_utc(value: Any) -> Any:
    """An aware time as the same moment in UTC without zone: PostgreSQL drops a zone silently, whatever it says."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
