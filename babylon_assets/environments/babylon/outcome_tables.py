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
from babylon_assets.environments.babylon.game_record import BEFORE, HORIZONS_AFTER, MILLISECONDS, naive, outcome_windows
from babylon_assets.environments.babylon.outcomes import OutcomeTables


def read_outcomes(
    conn: psycopg.Connection[Any],
    window: str,
    steps: pd.DataFrame,
    *,
    horizon_minutes: int = 60,
    windows: WindowGrid = HOURLY,
) -> OutcomeTables:
    """All that is known by now of the trades among a window's steps (a frame with `STEP_COLUMNS`)."""
    span = windows.parse(window)
    start, end = span.start - BEFORE, span.end
    until = end + HORIZONS_AFTER * timedelta(minutes=horizon_minutes)
    trades = read_trades(conn, _distinct(steps["agent_id"]), start, until)
    markets = _distinct(pd.concat([steps["market_id"], trades["market_id"]]))
    tickers = _distinct(pd.concat([steps["ticker"], trades["ticker"]]))
    return OutcomeTables(
        trades=trades,
        markets=read_markets(conn, markets),
        prediction_prices=read_prediction_prices(conn, markets, start, end),
        stock_prices=read_stock_prices(conn, tickers, start, until),
        market_outcomes=read_market_outcomes(conn, outcome_windows(span)),
        windows=windows,
    )


def read_trades(
    conn: psycopg.Connection[Any], agent_ids: Sequence[str], start: datetime, end: datetime
) -> pd.DataFrame:
    """The agents' trades in [start, end), oldest first. `price` of a NO share is the price of NO."""
    query = f"""
        SELECT "agentUserId" AS agent_id, "marketType" AS market_type, "marketId" AS market_id, ticker, action, side,
               amount, price, pnl, {MILLISECONDS.format('"executedAt"')} AS executed_at
        FROM public."AgentTrade"
        WHERE "agentUserId" = ANY(%s) AND "executedAt" >= %s AND "executedAt" < %s ORDER BY "executedAt", id"""
    return _frame(conn, query, (list(agent_ids), naive(start), naive(end)), OutcomeTables.TRADES)


def read_markets(conn: psycopg.Connection[Any], ids: Sequence[str]) -> pd.DataFrame:
    """Prediction markets by id; `resolution` is null until `resolved`, `updated_at` then the time of resolution."""
    query = f"""
        SELECT id AS market_id, resolved, resolution, {MILLISECONDS.format('"endDate"')} AS end_date,
               {MILLISECONDS.format('"updatedAt"')} AS updated_at
        FROM public."Market" WHERE id = ANY(%s) ORDER BY id"""
    return _frame(conn, query, (list(ids),), OutcomeTables.MARKETS)


def read_stock_prices(
    conn: psycopg.Connection[Any], tickers: Sequence[str], start: datetime, end: datetime
) -> pd.DataFrame:
    """Prices in [start, end), oldest first, by the ticker asked for: an organization's id or its name."""
    query = f"""
        SELECT asked.ticker, s.price, {MILLISECONDS.format('s."timestamp"')} AS timestamp
        FROM unnest(%s::text[]) AS asked (ticker)
        JOIN public."Organization" o ON o.id = asked.ticker OR o.name = asked.ticker
        JOIN public."StockPrice" s ON s."organizationId" = o.id
        WHERE s."timestamp" >= %s AND s."timestamp" < %s ORDER BY s."timestamp", s.id"""
    return _frame(conn, query, (list(tickers), naive(start), naive(end)), OutcomeTables.STOCK_PRICES)


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
