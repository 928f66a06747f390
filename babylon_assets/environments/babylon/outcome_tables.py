"""Reads what became of the trades in a window: the agents' trades, the markets, their quotes and the prices.

As `environments.babylon.game_record`, which reads the trajectories themselves: only SELECT, aware times, no judgement.
What a trade was worth is decided in `environments.babylon.outcomes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg

from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.babylon.clocks import NO_TIME, read_by_clock, read_clock, turn_back
from babylon_assets.environments.babylon.game_record import (
    BEFORE,
    HORIZONS_AFTER,
    MILLISECONDS,
    naive,
    outcome_windows,
)
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.environments.babylon.schema import Schema, look_at_schema
from babylon_assets.environments.babylon.statements import companies


def read_outcomes(
    conn: psycopg.Connection[Any],
    window: str,
    steps: pd.DataFrame,
    *,
    horizon_minutes: int = 60,
    windows: WindowGrid = HOURLY,
    schema: Schema | None = None,
) -> OutcomeTables:
    """All that is known by now of the trades among a window's steps (a frame with `STEP_COLUMNS`)."""
    span, schema = windows.parse(window), schema or look_at_schema(conn)
    rules = schema.game.rules
    start, end = span.start - BEFORE, span.end
    until = end + HORIZONS_AFTER * timedelta(minutes=horizon_minutes)
    agents, named = _distinct(steps["agent_id"]), _distinct(steps["market_id"])
    ahead = NO_TIME
    if schema.has_clock:
        ahead = read_clock(conn, 't."trajectoryId" = ANY(%(ids)s)', {"ids": _distinct(steps["trajectory_id"])})
    anytime = named if rules.winners_share else ()
    trades = read_trades(conn, agents, start + ahead, until + ahead, anytime, schema)
    trades = turn_back(trades, "executed_at", ahead)
    markets = _distinct(pd.concat([steps["market_id"], trades["market_id"]]))
    tickers = _distinct(pd.concat([steps["ticker"], trades["ticker"]]))
    empty = OutcomeTables.empty()
    pools, perps = rules.winners_share and schema.has("Position"), rules.positions_net and schema.has("PerpPosition")
    quotes = read_prediction_prices(conn, markets, start + ahead, end + ahead)
    perp_trades = trades["executed_at"][trades["ticker"].notna()]

    def read_prices(shift: timedelta) -> pd.DataFrame:
        prices = read_stock_prices(conn, tickers, start + shift, until + shift, schema)
        return turn_back(prices, "timestamp", shift)

    def read_holdings(shift: timedelta) -> pd.DataFrame:
        return read_perp_positions(conn, agents, start, until, trades_ahead=ahead, ahead=shift)

    return OutcomeTables(
        trades=trades,
        markets=read_markets(conn, markets, schema),
        prediction_prices=turn_back(quotes, "created_at", ahead),
        stock_prices=read_by_clock(read_prices, "timestamp", ahead, perp_trades),
        market_outcomes=read_market_outcomes(conn, outcome_windows(span))
        if rules.notes_are_outcomes
        else empty.market_outcomes,
        positions=read_positions(conn, markets) if pools else empty.positions,
        perp_positions=read_by_clock(read_holdings, "opened_at", ahead, perp_trades) if perps else empty.perp_positions,
        windows=windows,
    )


def read_trades(
    conn: psycopg.Connection[Any],
    agent_ids: Sequence[str],
    start: datetime,
    end: datetime,
    markets: Sequence[str] = (),
    schema: Schema | None = None,
) -> pd.DataFrame:
    """The agents' trades in [start, end), and those in some markets at any time, oldest first.

    `price` of a NO share is the price of NO. Of agents without any, those of the older engine, where it kept some.
    """
    columns = f"""SELECT "agentUserId" AS agent_id, "marketType" AS market_type, "marketId" AS market_id, ticker,
               action, side, amount, price, pnl, {MILLISECONDS.format('"executedAt"')} AS executed_at,
               "executedAt" AS at, id
        FROM public."AgentTrade" WHERE "agentUserId" = ANY(%(agents)s)"""
    in_range = """ "executedAt" >= %(start)s AND "executedAt" < %(end)s"""
    query = f"""
        SELECT agent_id, market_type, market_id, ticker, action, side, amount, price, pnl, executed_at FROM (
            {columns} AND {in_range}
            UNION ALL
            {columns} AND "marketType" = 'prediction' AND "marketId" = ANY(%(markets)s) AND NOT ({in_range})
        ) AS trades ORDER BY at, id"""
    parameters = {"agents": list(agent_ids), "start": naive(start), "end": naive(end), "markets": list(markets)}
    trades = _frame(conn, query, parameters, OutcomeTables.TRADES)
    others = sorted(set(agent_ids) - set(trades["agent_id"]))
    if schema is None or not schema.has("NPCTrade") or not others:
        return trades
    query = f"""
        SELECT "npcActorId" AS agent_id, "marketType" AS market_type, "marketId" AS market_id, ticker, action, side,
               amount, price, NULL::float8 AS pnl, {MILLISECONDS.format('"executedAt"')} AS executed_at
        FROM public."NPCTrade"
        WHERE "npcActorId" = ANY(%(agents)s) AND "executedAt" >= %(start)s AND "executedAt" < %(end)s
        ORDER BY "executedAt", id"""
    older = _frame(conn, query, parameters | {"agents": others}, OutcomeTables.TRADES)
    return pd.concat([trades, older], ignore_index=True) if len(older) else trades


def read_markets(conn: psycopg.Connection[Any], ids: Sequence[str], schema: Schema | None = None) -> pd.DataFrame:
    """Prediction markets by id; `resolution` is null until `resolved`, `updated_at` then the time of resolution.

    A position's own time of resolution goes before that of the market's row, which may be written again later.
    """
    settled = schema is not None and schema.game.rules.winners_share and schema.has("Position")
    positions = """(SELECT max(p."resolvedAt") FROM public."Position" p WHERE p."marketId" = m.id)"""
    at = f"""coalesce({positions}, m."updatedAt")""" if settled else 'm."updatedAt"'
    query = f"""
        SELECT m.id AS market_id, m.resolved, m.resolution, {MILLISECONDS.format('m."endDate"')} AS end_date,
               {MILLISECONDS.format(at)} AS updated_at
        FROM public."Market" m WHERE m.id = ANY(%s) ORDER BY m.id"""
    return _frame(conn, query, (list(ids),), OutcomeTables.MARKETS)


def read_positions(conn: psycopg.Connection[Any], markets: Sequence[str]) -> pd.DataFrame:
    """Everybody's positions in some markets; what came of one, and when, is NaN while that is open."""
    query = f"""
        SELECT "userId" AS agent_id, "marketId" AS market_id, CASE WHEN side THEN 'yes' ELSE 'no' END AS side,
               shares::float8, "avgPrice"::float8 AS price, pnl::float8,
               {MILLISECONDS.format('"resolvedAt"')}::float8 AS resolved_at
        FROM public."Position" WHERE "marketId" = ANY(%s) ORDER BY "createdAt", id"""
    return _frame(conn, query, (list(markets),), OutcomeTables.POSITIONS)


def read_perp_positions(
    conn: psycopg.Connection[Any],
    agent_ids: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    trades_ahead: timedelta = NO_TIME,
    ahead: timedelta = NO_TIME,
) -> pd.DataFrame:
    """The agents' positions in perpetuals that were open in [start, end), oldest first.

    `adds` counts the trades that added to one beside the one that opened it, by which its entry became an average.

    Args:
        trades_ahead, ahead: by how much the times of trades, and of openings, are ahead of UTC.
    """
    query = f"""
        SELECT p."userId" AS agent_id, p.ticker, lower(p.side) AS side, p."entryPrice" AS entry, p.size,
               p.leverage::float8, {MILLISECONDS.format("p.opened")}::float8 AS opened_at,
               {MILLISECONDS.format('p."closedAt"')}::float8 AS closed_at,
               (SELECT count(*) FROM public."AgentTrade" t WHERE t."agentUserId" = p."userId"
                AND p.ticker IN (t.ticker, t."marketId") AND lower(t.action) = 'open' AND lower(t.side) = lower(p.side)
                AND t."executedAt" - %(trades_ahead)s > p.opened - interval '5 seconds'
                AND (p."closedAt" IS NULL OR t."executedAt" - %(trades_ahead)s < p."closedAt"))::float8 - 1 AS adds
        FROM (SELECT *, "openedAt" - %(ahead)s AS opened FROM public."PerpPosition"
              WHERE "userId" = ANY(%(agents)s) AND "openedAt" < %(end)s
              AND ("closedAt" IS NULL OR "closedAt" >= %(start)s)) AS p
        ORDER BY p.opened, p.id"""
    shifts = {"trades_ahead": trades_ahead, "ahead": ahead}
    parameters = {"agents": list(agent_ids), "end": naive(end + ahead), "start": naive(start), **shifts}
    return _frame(conn, query, parameters, OutcomeTables.PERP_POSITIONS)


def read_stock_prices(
    conn: psycopg.Connection[Any],
    tickers: Sequence[str],
    start: datetime,
    end: datetime,
    schema: Schema | None = None,
) -> pd.DataFrame:
    """Prices in [start, end), oldest first, by the ticker asked for.

    A ticker is an organization's id, its name, or what snapshots and positions call it.
    """
    names = companies("SELECT unnest(%(tickers)s::text[]) AS ticker", schema or look_at_schema(conn))
    query = f"""
        WITH named AS ({names})
        SELECT named.ticker, s.price, {MILLISECONDS.format('s."timestamp"')} AS timestamp
        FROM named JOIN public."StockPrice" s ON s."organizationId" = named.organization
        WHERE s."timestamp" >= %(start)s AND s."timestamp" < %(end)s ORDER BY s."timestamp", s.id"""
    parameters = {"tickers": list(tickers), "start": naive(start), "end": naive(end)}
    return _frame(conn, query, parameters, OutcomeTables.STOCK_PRICES)


def read_prediction_prices(
    conn: psycopg.Connection[Any], market_ids: Sequence[str], start: datetime, end: datetime
) -> pd.DataFrame:
    """Prices of YES and NO in [start, end) and the last before it, oldest first."""
    query = f"""
        SELECT "marketId" AS market_id, "yesPrice" AS yes_price, "noPrice" AS no_price,
               {MILLISECONDS.format('"createdAt"')} AS created_at
        FROM public."PredictionPriceHistory"
        WHERE "marketId" = ANY(%(ids)s) AND "createdAt" >= %(start)s AND "createdAt" < %(end)s
        UNION ALL
        SELECT asked.id, before."yesPrice", before."noPrice", {MILLISECONDS.format('before."createdAt"')}
        FROM unnest(%(ids)s::text[]) AS asked (id) CROSS JOIN LATERAL (
            SELECT p.* FROM public."PredictionPriceHistory" p WHERE p."marketId" = asked.id
            AND p."createdAt" < %(start)s ORDER BY p."createdAt" DESC LIMIT 1) AS before
        ORDER BY created_at"""
    parameters = {"ids": list(market_ids), "start": naive(start), "end": naive(end)}
    return _frame(conn, query, parameters, OutcomeTables.PREDICTION_PRICES)


def read_market_outcomes(conn: psycopg.Connection[Any], windows: Sequence[str]) -> pd.DataFrame:
    """What the game noted as outcomes in these windows, the latest note last."""
    query = f"""
        SELECT "windowId" AS window, "stockTicker" AS ticker, "changePercent"::float8 AS change_percent,
               "predictionMarketId" AS market_id, outcome, {MILLISECONDS.format('"createdAt"')} AS created_at
        FROM public.market_outcomes WHERE "windowId" = ANY(%s) ORDER BY "createdAt", id"""
    return _frame(conn, query, (list(windows),), OutcomeTables.MARKET_OUTCOMES)


def _frame(conn: psycopg.Connection[Any], query: str, parameters: Any, columns: dict[str, str]) -> pd.DataFrame:
    """The result as a frame with the declared columns and types, which an empty result has as well.

    Times come as epoch milliseconds: 12,000 of them as datetimes took 60 ms.
    """
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(query.encode(), parameters).fetchall()
    values: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pd.DataFrame({name: _column(v, dtype) for (name, dtype), v in zip(columns.items(), values, strict=True)})


def _column(values: tuple[Any, ...], dtype: str) -> Any:
    if dtype.startswith("datetime64[ms"):
        return pd.DatetimeIndex(np.array(values, dtype="int64").view("M8[ms]"), tz="UTC")
    if dtype == "boolean":
        return pd.array(list(values), dtype="boolean")
    column = np.empty(len(values), dtype=dtype)
    column[:] = values
    return column


def _distinct(values: pd.Series[Any]) -> list[str]:
    return sorted(values.dropna().unique())
