"""What a game that is played on these tables reads and changes: agents' money, open bets, markets to resolve.

For the simulated game only. A real game does this itself; the product never calls these on a game that it reads from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg import Connection

from babylon_assets.domain.windows import Window, WindowGrid


class OpenBet(NamedTuple):
    """An agent's bet on a prediction market that has not resolved: side yes or no, and when the market was made."""

    agent_id: str
    side: str
    market_id: str
    market_created: datetime


class DueMarket(NamedTuple):
    """A prediction market that is to resolve: when it was made, when it ends."""

    market_id: str
    created: datetime
    end: datetime


def is_played(conn: Connection[Any], window: Window) -> bool:
    """Whether there are trajectories of this window."""
    query = 'SELECT EXISTS (SELECT 1 FROM public."trajectories" WHERE "startTime" >= %s AND "startTime" < %s)'
    row = conn.execute(query, [_naive(window.start), _naive(window.end)]).fetchone()
    return bool(row and row[0])


def newest_played(conn: Connection[Any], windows: WindowGrid) -> Window | None:
    """The newest window that there are trajectories of."""
    row = conn.execute('SELECT max("startTime") FROM public."trajectories"').fetchone()
    return None if row is None or row[0] is None else windows.of(row[0].replace(tzinfo=UTC))


def oldest_played(conn: Connection[Any], windows: WindowGrid) -> Window | None:
    """The oldest window that there are trajectories of."""
    row = conn.execute('SELECT min("startTime") FROM public."trajectories"').fetchone()
    return None if row is None or row[0] is None else windows.of(row[0].replace(tzinfo=UTC))


def balances(conn: Connection[Any], agents: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Cash and lifetime P&L in dollars of those agents that exist."""
    query = 'SELECT "id", "virtualBalance"::float8, "lifetimePnL"::float8 FROM public."User" WHERE "id" = ANY(%s)'
    return {agent: (cash, pnl) for agent, cash, pnl in conn.execute(query, [list(agents)])}


def set_balances(conn: Connection[Any], money: Iterable[tuple[str, float, float]], now: datetime) -> None:
    """Store (agent, cash, lifetime P&L) as of `now`."""
    query = 'UPDATE public."User" SET "virtualBalance" = %s, "lifetimePnL" = %s, "updatedAt" = %s WHERE "id" = %s'
    with conn.cursor() as cursor:
        cursor.executemany(query, [(round(cash, 2), round(pnl, 2), _naive(now), agent) for agent, cash, pnl in money])


def has_organizations(conn: Connection[Any]) -> bool:
    """Whether any organisation exists."""
    return conn.execute('SELECT 1 FROM public."Organization" LIMIT 1').fetchone() is not None


def open_bets(conn: Connection[Any], agents: Sequence[str]) -> list[OpenBet]:
    """The agents' bets on markets that have not resolved, in the order in which they were made."""
    query = (
        'SELECT t."agentUserId", t."side", m."id", m."createdAt" FROM public."AgentTrade" t JOIN public."Market" m '
        'ON m."id" = t."marketId" WHERE NOT m."resolved" AND t."agentUserId" = ANY(%s) ORDER BY t."executedAt", t."id"'
    )
    rows = conn.execute(query, [list(agents)]).fetchall()
    return [OpenBet(agent, side, market, created.replace(tzinfo=UTC)) for agent, side, market, created in rows]


def due_markets(conn: Connection[Any], before: datetime) -> list[DueMarket]:
    """Markets that have not resolved although they end before the given time."""
    query = (
        'SELECT "id", "createdAt", "endDate" FROM public."Market" WHERE NOT "resolved" AND "endDate" < %s ORDER BY "id"'
    )
    rows = conn.execute(query, [_naive(before)]).fetchall()
    return [DueMarket(market, created.replace(tzinfo=UTC), end.replace(tzinfo=UTC)) for market, created, end in rows]


def resolve_market(conn: Connection[Any], market: DueMarket, resolution: bool) -> None:
    """Resolve a market at its end."""
    query = 'UPDATE public."Market" SET "resolved" = true, "resolution" = %s, "updatedAt" = %s WHERE "id" = %s'
    conn.execute(query, [resolution, _naive(market.end), market.market_id])


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)
