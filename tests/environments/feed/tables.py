"""Feed's tables as Drizzle leaves them: types, defaults and indexes, no foreign keys."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Json

#: A letter for each type; `!` is NOT NULL, `=x` a default with NOT NULL, `?=x` one without, `U` unique.
_TYPES = {"i": "integer", "d": "double precision", "b": "boolean", "ts": "timestamp", "j": "json", "jb": "jsonb"}
_CREATED, _UPDATED = "createdAt ts=now()", "updatedAt ts!"

TABLES: dict[str, str] = {
    "trajectories": "id, trajectoryId !U, agentId !, startTime ts!, endTime ts!, durationMs i!, windowId v50, "
    "windowHours i=1, episodeId v100, scenarioId v100, batchId v100, stepsJson !, rewardComponentsJson !, "
    "metricsJson !, metadataJson !, totalReward d!, episodeLength i!, finalStatus !, finalBalance d, finalPnL d, "
    "tradesExecuted i, postsCreated i, aiJudgeReward d, aiJudgeReasoning, judgedAt ts, isTrainingData b=true, "
    "isEvaluation b=false, usedInTraining b=false, trainedInBatch, archetype v50, npcRole v20, arcPhase v20, "
    f"worldStateSnapshotId, packId, questionIds, eventIds, memorySnapshotJson, relationshipSnapshotJson, {_CREATED}, "
    f"{_UPDATED}",
    "reward_judgments": "id, trajectoryId !U, judgeModel !, judgeVersion !, overallScore d!, componentScoresJson, "
    "rank i, normalizedScore d, groupId, reasoning !, strengthsJson, weaknessesJson, criteriaJson !, judgedAt ts=now()",
    "training_batches": "id, batchId !U, scenarioId, baseModel !, modelVersion !, trajectoryIds !, rankingsJson, "
    "rewardsJson !, trainingLoss d, policyImprovement d, status =pending, error, "
    f"{_CREATED}, startedAt ts, completedAt ts",
    "trained_models": "id, modelId !U, version !, baseModel !, trainingBatch, status =training, deployedAt ts, "
    "archivedAt ts, storagePath !, benchmarkScore d, accuracy d, avgReward d, evalMetrics j, wandbRunId, "
    "wandbArtifactId, huggingFaceRepo, agentsUsing i=0, totalInferences i=0, lastBenchmarked ts, "
    f"benchmarkCount i=0, {_CREATED}, {_UPDATED}",
    "benchmark_results": "id, modelId !, benchmarkId !, benchmarkPath !, runAt ts=now(), totalPnl d!, "
    "predictionAccuracy d!, perpWinRate d!, optimalityScore d!, detailedMetrics j!, baselinePnlDelta d, "
    f"baselineAccuracyDelta d, improved b, duration i!, {_CREATED}",
    "llm_call_logs": "id, trajectoryId !, stepId !, callId !U, timestamp ts!, latencyMs i, model !, purpose !, "
    "actionType, systemPrompt !, userPrompt !, messagesJson, response !, reasoning, temperature d!, maxTokens i!, "
    f"topP d, promptTokens i, completionTokens i, totalTokens i, metadata, {_CREATED}",
    "market_outcomes": "id, windowId v50!, stockTicker v20, startPrice n10.2, endPrice n10.2, changePercent n5.2, "
    "sentiment v20, newsEvents j, predictionMarketId, question, outcome v20, finalProbability n5.4, volume n15.2, "
    f"{_CREATED}",
    "User": "id, username U, walletAddress U, displayName, bio, virtualBalance n18.2=1000, totalDeposited n18.2=1000, "
    "totalWithdrawn n18.2=0, lifetimePnL n18.2=0, reputationPoints i=1000, isActor b=false, isAdmin b=false, "
    f"isBanned b=false, isTest b=false, isAgent b=false, isScammer b=false, managedBy, {_CREATED}, {_UPDATED}",
    "UserAgentConfig": "id, userId !U, personality, system, tradingStrategy, personaPrompt, style j, "
    "messageExamples j, goals j, directives j, constraints j, priceAlerts j?=[], alignment =neutral, team =gray, "
    "planningHorizon =single, riskTolerance =medium, maxActionsPerTick i=3, modelTier =free, autonomousTrading b=true, "
    f"status =idle, errorMessage, lastTickAt ts, lastChatAt ts, {_CREATED}, {_UPDATED}",
    "AgentTrade": "id, marketType !, marketId, ticker, action !, side, amount d!, price d!, pnl d, reasoning, "
    "executedAt ts=now(), agentUserId !",
    "NPCTrade": "id, npcActorId !, marketType !, action !, poolId, ticker, marketId, side, amount d!, price d!, "
    "sentiment d, reason, postId, executedAt ts=now()",
    "Market": "id, question !, description, gameId, dayNumber i, yesShares n18.6=0, noShares n18.6=0, "
    "liquidity n18.6!, resolved b=false, resolution b, endDate ts!, resolutionProofUrl, resolutionDescription, "
    f"{_CREATED}, {_UPDATED}",
    "Question": "id, questionNumber i!U, text !, scenarioId i!, rank i!, outcome b!, createdDate ts=now(), "
    "resolutionDate ts!, status =active, resolvedOutcome b, topicKey, topicLabel, resolutionReviewStatus, "
    f"resolutionReviewedAt ts, requiresManualReview b=false, {_CREATED}, {_UPDATED}",
    "Position": "id, userId !, marketId !, side b!, shares n18.6!, avgPrice n18.6!, amount n18.2=0, outcome b, "
    f"pnl n18.2, questionId i, resolvedAt ts, status =active, {_CREATED}, {_UPDATED}",
    "PredictionPriceHistory": "id, marketId !, yesPrice d!, noPrice d!, yesShares n24.8!, noShares n24.8!, "
    f"liquidity n24.8!, eventType !, source !, {_CREATED}",
    "Organization": "id, name !, ticker, description !, type !, canBeInvolved b=true, initialPrice d, currentPrice d, "
    f"imageUrl, {_CREATED}, {_UPDATED}",
    "OrganizationState": f"id, currentPrice d, basePrice d=100, sentiment i=0, activeModifiers jb?=[], {_CREATED}, "
    f"{_UPDATED}",
    "StockPrice": "id, organizationId !, price d!, change d!, changePercent d!, timestamp ts=now(), "
    "isSnapshot b=false, openPrice d, highPrice d, lowPrice d, volume d",
    "PerpMarketSnapshot": "ticker, organizationId !, name, currentPrice d!, high24h d!, low24h d!, price24hAgo d, "
    "change24h d=0, changePercent24h d=0, volume24h d=0, openInterest d=0, fundingRate jb!, maxLeverage i=100, "
    f"minOrderSize i=10, {_CREATED}, updatedAt ts=now()",
    "PerpPosition": "id, userId !, ticker !, organizationId !, side !, entryPrice d!, currentPrice d!, size d!, "
    "liquidationPrice d!, unrealizedPnL d!, unrealizedPnLPercent d!, leverage i!, fundingPaid d=0, "
    "openedAt ts=now(), lastUpdated ts!, closedAt ts, settledAt ts, realizedPnL d",
    "ActorState": f"id, tradingBalance n18.2=10000, reputationPoints i=10000, hasPool b=false, postsToday i=0, "
    f"relationships jb?={{}}, {_CREATED}, {_UPDATED}",
}
INDEXES = (
    *(("trajectories", names) for names in ("windowId", "windowId,agentId", "agentId,startTime", "archetype")),
    *(("AgentTrade", names) for names in ("agentUserId,executedAt", "marketType,marketId", "ticker")),
    *(("Position", names) for names in ("marketId", "userId", "status,resolvedAt")),
    *(("StockPrice", names) for names in ("timestamp", "organizationId,timestamp")),
    *(("PerpPosition", names) for names in ("organizationId", "ticker", "userId,closedAt", "userId,openedAt")),
    *(("Market", names) for names in ("createdAt", "resolved,endDate")),
    ("PredictionPriceHistory", "marketId,createdAt"),
    ("NPCTrade", "npcActorId,executedAt"),
    ("market_outcomes", "windowId"),
)


def create_feed_tables(conn: psycopg.Connection[Any]) -> None:
    """Create Feed's tables in `public`; does not commit."""
    for table, columns in TABLES.items():
        listed = ", ".join(_column(text, place) for place, text in enumerate(re.split(r", ", columns)))
        conn.execute(f'CREATE TABLE public."{table}" ({listed})'.encode())
    for table, names in INDEXES:
        keys = ", ".join(f'"{name}"' for name in names.split(","))
        name = f"{table}_{names.replace(',', '_')}_idx"
        conn.execute(f'CREATE INDEX "{name}" ON public."{table}" ({keys})'.encode())


def _column(text: str, place: int) -> str:
    name, _, rest = text.partition(" ")
    found = re.fullmatch(r"(?P<type>v\d+|n[\d.]+|ts|jb|i|d|b|j)?(?P<null>!?)(?P<unique>U?)(?P<default>\??=.*)?", rest)
    assert found is not None, text
    given = found["type"] or ""
    kind = _TYPES.get(given, "text")
    if given[:1] == "v":
        kind = f"varchar({given[1:]})"
    elif given[:1] == "n":
        kind = f"numeric({given[1:].replace('.', ',')})"
    default, primary = found["default"] or "", " PRIMARY KEY" if place == 0 else ""
    value = default.lstrip("?=")
    quoted = value if value in ("now()", "true", "false") or value.isdigit() else f"'{value}'"
    null = " NOT NULL" if found["null"] or default.startswith("=") else ""
    unique = " UNIQUE" if found["unique"] else ""
    return f'"{name}" {kind}{primary}{null}{unique}{f" DEFAULT {quoted}" if default else ""}'


def insert_rows(conn: psycopg.Connection[Any], table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; a column that a row leaves out takes its default, aware times are stored as UTC."""
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    for columns, members in alike.items():
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier("public", table), names, marks)
        with conn.cursor() as cursor:
            cursor.executemany(statement, [[_value(row[column]) for column in columns] for row in members])


def _value(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return Json(value) if isinstance(value, dict | list) else value
