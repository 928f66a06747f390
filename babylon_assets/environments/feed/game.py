"""What Feed is, beside Babylon: its tables, its rules, and how a database shows which of the two it holds."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import psycopg

from babylon_assets.environments.babylon.rules import GameRules
from babylon_assets.environments.babylon.schema import (
    AGENT_CONFIG,
    AGENT_TRADE,
    CALL_LOGS,
    MARKET,
    PERP_SNAPSHOT,
    PREDICTION_PRICES,
    REWARD_JUDGMENTS,
    STOCK_PRICE,
    TRAJECTORIES,
    RecordedGame,
    SourceTable,
    look_at_schema,
)

#: Its `market_outcomes` holds the change of 24 hours, NO for cancelled markets, and the probability of NO.
FEED = GameRules(
    failure_may_hold=False,
    unnamed_calls_act=True,
    trades_follow_steps=True,
    winners_share=True,
    positions_net=True,
    open_price_is_fill=False,
    notes_are_outcomes=False,
    knows_rollbacks=True,
)
FEED_GAME = RecordedGame(
    "feed",
    FEED,
    {
        "trajectories": TRAJECTORIES,
        "User": SourceTable(("id", "isTest", "isBanned")),
        "AgentTrade": AGENT_TRADE,
        "Market": MARKET,
        "StockPrice": STOCK_PRICE,
        "PredictionPriceHistory": PREDICTION_PRICES,
        "Position": SourceTable(
            ("id", "userId", "marketId", "side", "shares", "avgPrice", "pnl", "resolvedAt"),
            cost="a right bet has no worth, and a sale only where its trade says its profit",
        ),
        "PerpPosition": SourceTable(
            (
                *("id", "userId", "ticker", "organizationId", "side", "entryPrice", "size", "leverage", "openedAt"),
                "closedAt",
            ),
            cost="perpetuals are entered at the last price before the step",
        ),
        "PerpMarketSnapshot": PERP_SNAPSHOT,
        "Organization": SourceTable(("id", "name"), ("ticker",), cost="tickers are found by positions and snapshots"),
        "UserAgentConfig": AGENT_CONFIG,
        "NPCTrade": SourceTable(
            ("id", "npcActorId", "marketType", "ticker", "marketId", "action", "side", "amount", "price", "executedAt"),
            cost="trades of the older engine's NPCs have no worth",
        ),
        "reward_judgments": REWARD_JUDGMENTS,
        "llm_call_logs": CALL_LOGS,
    },
)
#: Tables that only Feed has. A Babylon of spring 2026 has some of them.
_NEW_TABLES = ("UserAgentConfig", "PerpMarketSnapshot", "ActorState", "OrganizationState", "benchmark_results")
_THERE = "SELECT count(*) FROM unnest(%s::text[]) AS name WHERE to_regclass(format('public.%%I', name)) IS NOT NULL"
_NEWEST = """
    SELECT left("stepsJson", 200000) FROM public.trajectories WHERE "windowId" IS NOT NULL
    ORDER BY "windowId" DESC LIMIT 100"""
_NEW_WORD = re.compile(r'"actionType"\s*:\s*"TRADE"')
_OLD_WORD = re.compile(
    r'"actionType"\s*:\s*"(?:TRADING_DECISION|CREATE_POST|CREATE_COMMENT|(?:BUY|SELL|OPEN|CLOSE)_\w+)"', re.I
)


class GameFound(NamedTuple):
    """Which game a database holds, `babylon` or `feed`, and what shows it."""

    name: str
    evidence: str
    has_rows: bool


def find_game(conn: psycopg.Connection[Any]) -> GameFound | None:
    """Find from its tables, and from the words in its newest rows, which game a database holds; None: it holds none.

    Where the rows have words of both games the commoner ones say; where they have none, the tables do.
    """
    schema = look_at_schema(conn, FEED_GAME)
    if "trajectories" not in schema.columns:
        return None
    if faults := schema.faults():
        return GameFound("babylon", f"Feed's tables are not all there: {faults[0]}", True)
    row = conn.execute(_THERE, [list(_NEW_TABLES)]).fetchone()
    tables = row[0] if row else 0
    texts = [text for (text,) in conn.execute(_NEWEST)]
    new = sum(len(_NEW_WORD.findall(text)) for text in texts)
    old = sum(len(_OLD_WORD.findall(text)) for text in texts)
    is_feed = new > old if new or old else tables >= 3
    evidence = f"{tables} of {len(_NEW_TABLES)} new tables; {new} trades in Feed's words, {old} in Babylon's"
    return GameFound("feed" if is_feed else "babylon", evidence, bool(texts))
