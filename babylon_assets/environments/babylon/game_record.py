"""Reads the game's record: its windows and their trajectories. What became of the trades is read in `outcomes`.

Only SELECT is ever issued, so a role that may do nothing else is enough. Every function takes an open connection
whose session runs in UTC; times come back aware. What a row means is decided in `core`; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from babylon_assets.domain.errors import SourceError
from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.domain.windows import HOURLY, Window, WindowGrid
from babylon_assets.environments.babylon import decoding
from babylon_assets.environments.babylon.decoding import SourceRow, decode_row
from babylon_assets.environments.base import SourceWindow

#: Tables and the columns that are read of them.
READS: dict[str, tuple[str, ...]] = {
    "trajectories": (
        *(
            "trajectoryId",
            "agentId",
            "windowId",
            "scenarioId",
            "startTime",
            "endTime",
            "stepsJson",
            "finalStatus",
        ),
        *("finalBalance", "finalPnL", "isTrainingData", "isEvaluation", "updatedAt"),
    ),
    "User": ("id", "isTest", "isBanned"),
    "AgentTrade": (
        *(
            "id",
            "agentUserId",
            "marketType",
            "marketId",
            "ticker",
            "action",
            "side",
            "amount",
            "price",
            "pnl",
        ),
        "executedAt",
    ),
    "Market": ("id", "resolved", "resolution", "endDate", "updatedAt"),
    "Organization": ("id", "name"),
    "StockPrice": ("id", "organizationId", "price", "timestamp"),
    "PredictionPriceHistory": ("id", "marketId", "yesPrice", "noPrice", "createdAt"),
    "market_outcomes": (
        "id",
        "windowId",
        "stockTicker",
        "changePercent",
        "predictionMarketId",
        "outcome",
        "createdAt",
    ),
}
#: Trades and prices up to this many horizons after a window may decide what its trades were worth.
HORIZONS_AFTER = 2
#: A step of a window may lie this long before it, in an episode that crossed the hour.
BEFORE = timedelta(hours=1)
#: A market's outcome is looked for in this many windows from the trade's own, where the market itself is
#: gone.
OUTCOME_WINDOWS = 24

_WINDOW_PATTERN = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):00$"
_HOUR_OF_END = """to_char("endTime", 'YYYY-MM-DD"T"HH24":00"')"""
_OF_WINDOW = """
    FROM public.trajectories t JOIN public."User" u ON u.id = t."agentId"
    WHERE {placed}
      AND t."isTrainingData" AND NOT t."isEvaluation"
      AND (NOT u."isTest" OR %(include_test)s) AND (NOT u."isBanned" OR %(include_banned)s)"""
_PLACED = "{placed}"
_PLACED_BY_TIME = """(t."endTime" >= %(start)s AND t."endTime" < %(end)s)"""
_PLACED_BY_ID = f"""(t."windowId" = %(window)s
           OR (t."windowId" IS NULL AND {_PLACED_BY_TIME})
           OR (t."windowId" = ANY(%(odd)s) AND {_PLACED_BY_TIME}))"""
#: Epoch milliseconds of a time, clipped as `_TIME` is.
MILLISECONDS = (
    """(extract(epoch FROM least(greatest({0}, timestamp '0001-01-02'), timestamp '9999-12-30')) * 1000)::int8"""
)
#: Infinite times and years beyond what Python can hold are clipped.
_TIME = """least(greatest(t."{0}", timestamp '0001-01-02'), timestamp '9999-12-30') AT TIME ZONE 'UTC'"""
_READ_WINDOW = f"""COPY (
    SELECT t."trajectoryId", t."agentId", t."windowId" IS NOT NULL, t."scenarioId", {_TIME.format("startTime")},
           {_TIME.format("endTime")}, t."finalStatus", t."finalBalance", t."finalPnL", t."stepsJson"
    {_OF_WINDOW}) TO STDOUT (FORMAT binary)"""
_READ_TYPES = (
    "text",
    "text",
    "bool",
    "text",
    "timestamptz",
    "timestamptz",
    "text",
    "float8",
    "float8",
    "bytea",
)
_COLUMNS_THERE = """
    SELECT c.relname, a.attname, has_column_privilege(c.oid, a.attnum, 'SELECT') FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm')"""
_LIST_WINDOWS = f"""
    WITH placed AS (
        SELECT "windowId" AS id, "agentId" AS agent, count(*) AS n FROM public.trajectories
        WHERE "windowId" >= %(since)s AND "windowId" <> ALL(%(odd)s) GROUP BY 1, 2
        UNION ALL
        SELECT {_HOUR_OF_END}, "agentId", count(*) FROM public.trajectories
        WHERE ("windowId" IS NULL OR "windowId" = ANY(%(odd)s)) AND "endTime" >= %(start)s GROUP BY 1, 2)
    SELECT id, count(DISTINCT agent), sum(n)::bigint FROM placed WHERE id ~ %(pattern)s GROUP BY id ORDER BY id"""
#: The ids from one on, each found by a look into the index on windowId; with `only_odd`, up to the first window's.
_IDS = """
    WITH RECURSIVE ids AS (
        (SELECT "windowId" AS id FROM public.trajectories WHERE "windowId" >= %(since)s ORDER BY "windowId" LIMIT 1)
        UNION ALL
        SELECT (SELECT t."windowId" FROM public.trajectories t WHERE t."windowId" > ids.id
                ORDER BY t."windowId" LIMIT 1)
        FROM ids WHERE ids.id IS NOT NULL AND NOT (%(only_odd)s AND ids.id ~ %(pattern)s))
    SELECT id FROM ids WHERE id IS NOT NULL"""
_COUNTS = """
    SELECT "windowId", count(*) FROM public.trajectories WHERE "windowId" = ANY(%s) GROUP BY 1 ORDER BY 2 DESC, 1"""
_LIST_BY_TIME = """
    SELECT to_char(date_bin(%(length)s, "endTime", timestamp '2000-01-01'), 'YYYY-MM-DD"T"HH24:MI') AS id,
           count(DISTINCT "agentId"), count(*)
    FROM public.trajectories
    WHERE "endTime" >= greatest(%(start)s, timestamp '0001-01-02') AND "endTime" < timestamp '9999-12-30'
    GROUP BY 1 ORDER BY 1"""
_FINGERPRINT = f"""
    WITH kept AS (
        SELECT t."trajectoryId" AS id, t."agentId" AS agent, t."updatedAt" AS at, octet_length(t."stepsJson") AS size
        {_OF_WINDOW}),
    trades AS (
        SELECT a.* FROM public."AgentTrade" a WHERE a."agentUserId" IN (SELECT agent FROM kept)
          AND a."executedAt" >= %(before)s AND a."executedAt" < %(until)s),
    markets AS (
        SELECT "marketId" AS id FROM trades WHERE "marketId" IS NOT NULL UNION SELECT unnest(%(instruments)s::text[])),
    tickers AS (SELECT ticker FROM trades WHERE ticker IS NOT NULL UNION SELECT unnest(%(instruments)s::text[])),
    lines AS (
        SELECT 0 AS part, %(version)s::text AS key, '' AS line
        UNION ALL
        SELECT 1, id, concat_ws('|', agent, extract(epoch FROM at), size) FROM kept
        UNION ALL
        SELECT 2, id, concat_ws('|', "agentUserId", action, side, amount, price, extract(epoch FROM "executedAt"))
        FROM trades
        UNION ALL
        SELECT 3, id, concat_ws('|', resolved, resolution, extract(epoch FROM "updatedAt")) FROM public."Market"
        WHERE id IN (SELECT id FROM markets)
        UNION ALL
        SELECT 4, s.id, s.price::text FROM public."StockPrice" s
        JOIN public."Organization" o ON o.id = s."organizationId"
        WHERE (o.id IN (SELECT ticker FROM tickers) OR o.name IN (SELECT ticker FROM tickers))
          AND s."timestamp" >= %(before)s AND s."timestamp" < %(until)s
        UNION ALL
        SELECT 5, id, concat_ws('|', "changePercent", outcome) FROM public.market_outcomes
        WHERE "windowId" = ANY(%(outcome_windows)s)
        UNION ALL
        SELECT 6, p.id, concat_ws('|', p."yesPrice", p."noPrice", extract(epoch FROM p."createdAt"))
        FROM public."PredictionPriceHistory" p JOIN markets m ON m.id = p."marketId"
        WHERE p."createdAt" >= %(before)s AND p."createdAt" < %(end)s
        UNION ALL
        SELECT 7, last.id, concat_ws('|', last."yesPrice", last."noPrice")
        FROM markets m CROSS JOIN LATERAL (
            SELECT p.* FROM public."PredictionPriceHistory" p WHERE p."marketId" = m.id
            AND p."createdAt" < %(before)s ORDER BY p."createdAt" DESC LIMIT 1) AS last),
    joined AS (
        SELECT coalesce(string_agg(concat_ws('|', part, key, line), E'\\n' ORDER BY part, key COLLATE "C"), '') AS text
        FROM lines)
    SELECT encode(sha256(convert_to(text, 'UTF8')), 'hex') FROM joined"""


def check_tables(conn: psycopg.Connection[Any]) -> None:
    """Check that every table and column in `READS` is there and may be read.

    Raises:
        SourceError: it names each that is missing or forbidden, and says what to do.
    """
    present: dict[str, dict[str, bool]] = {}
    for table, column, readable in conn.execute(_COLUMNS_THERE, [list(READS)]).fetchall():
        present.setdefault(table, {})[column] = readable
    missing = [fault for table, columns in READS.items() for fault in _faults(table, columns, present.get(table))]
    if missing:
        raise SourceError(
            f"the database lacks what is read of the game: {'; '.join(missing)}. "
            "Point DATABASE_URL at the game's database and grant its role SELECT on these tables."
        )


def has_game(conn: psycopg.Connection[Any]) -> bool:
    """Whether the database holds a game at all; what is wrong with one that is not whole, `check_tables` says."""
    row = conn.execute("SELECT to_regclass('public.trajectories')").fetchone()
    return bool(row and row[0] is not None)


def _faults(table: str, columns: Sequence[str], readable: dict[str, bool] | None) -> list[str]:
    if readable is None:
        return [f'table "{table}" is missing']
    absent = [f'"{table}"."{column}" is missing' for column in columns if column not in readable]
    return absent + [f'"{table}"."{column}" may not be read' for column in columns if readable.get(column) is False]


def list_windows(
    conn: psycopg.Connection[Any], since: str | None = None, *, windows: WindowGrid = HOURLY
) -> list[SourceWindow]:
    """The windows that have rows, oldest first; a row whose id is null or no window's counts for the hour of its end.

    The counts come from the index on (windowId, agentId) alone and include rows that `read_window` leaves out. With
    `since` only that window and later ones are looked at, which costs as much as they have rows. An id that is no
    window's is then seen if it sorts after `since` or before all windows: one that looks nearly like an old window is
    not, and waits for a look without `since`. Windows of another length than an hour hold the rows that ended in them.
    """
    start = naive(windows.parse(since).start) if since else datetime.min
    if windows != HOURLY:
        return [SourceWindow(*row) for row in conn.execute(_LIST_BY_TIME, {"start": start, "length": windows.length})]
    parameters = {"since": since or "", "start": start, "pattern": _WINDOW_PATTERN, "odd": odd_ids(conn, since)}
    return [SourceWindow(*row) for row in conn.execute(_LIST_WINDOWS, parameters)]


def odd_ids(conn: psycopg.Connection[Any], since: str | None = None, *, windows: WindowGrid = HOURLY) -> list[str]:
    """The window ids among the rows that are no hour's: their rows are placed by the hour of their endTime.

    Windows of another length place every row by its endTime, whatever its id, so that none is odd.

    Every different id is one look into an index: 8,760 of them take 80 ms. With `since`, only those that sort after it
    or before all windows are looked at.
    """
    if windows != HOURLY:
        return []
    parameters = {"since": since or "", "pattern": _WINDOW_PATTERN, "only_odd": False}
    identifiers = [row[0] for row in conn.execute(_IDS, parameters)]
    if since:
        identifiers += [row[0] for row in conn.execute(_IDS, {**parameters, "since": "", "only_odd": True})]
    return sorted({window for window in identifiers if not HOURLY.is_window(window)})


def count_odd_ids(conn: psycopg.Connection[Any], *, windows: WindowGrid = HOURLY) -> dict[str, int]:
    """How many rows have a windowId that is no window's, by that id, most first."""
    return dict(conn.execute(_COUNTS, [odd_ids(conn, windows=windows)]).fetchall())


def fingerprint(
    conn: psycopg.Connection[Any],
    window: str,
    *,
    include_test: bool = False,
    include_banned: bool = False,
    horizon_minutes: int = 60,
    instruments: Iterable[str] = (),
    odd: Sequence[str] | None = None,
    windows: WindowGrid = HOURLY,
) -> str:
    """A hash, computed by the server, of all that a window's records and outcomes are made from.

    It covers the rows' ids, update times and lengths, their agents' trades, the markets of these trades with their
    resolutions and quotes, the stock prices, market_outcomes, and the version of decoding. Markets and tickers that no
    trade names, but a step does, are covered if `instruments` has them; `odd` is as for `read_window`.
    """
    span = windows.parse(window)
    parameters = _window_parameters(conn, span, include_test, include_banned, odd) | {
        "before": naive(span.start - BEFORE),
        "until": naive(span.end + HORIZONS_AFTER * timedelta(minutes=horizon_minutes)),
        "instruments": sorted(instruments),
        "version": decoding.VERSION,
        "outcome_windows": outcome_windows(span),
    }
    row = conn.execute(_placed(_FINGERPRINT, windows), parameters).fetchone()
    assert row is not None
    return str(row[0])


def read_window(
    conn: psycopg.Connection[Any],
    window: str,
    *,
    include_test: bool = False,
    include_banned: bool = False,
    odd: Sequence[str] | None = None,
    windows: WindowGrid = HOURLY,
) -> Iterator[TrajectoryRecord | Quarantined]:
    """Stream the rows of a window, in no particular order, each once; memory is bounded by the longest row.

    A row belongs to the hour of its windowId, or to that in which it ended where that is null or one of the `odd_ids`,
    which are looked for if `odd` does not give them; where windows are no hours, to the one in which it ended.
    Evaluation rows and rows that are not training data are left out, as are those of test and banned users unless
    asked for. The connection can do nothing else until the iterator is exhausted or closed.
    """
    parameters = _window_parameters(conn, windows.parse(window), include_test, include_banned, odd)
    with conn.cursor() as cursor, cursor.copy(_placed(_READ_WINDOW, windows), parameters) as copy:
        copy.set_types(_READ_TYPES)
        for row in copy.rows():
            yield decode_row(SourceRow(window, row[2], row[0], row[1], *row[3:]))


def _window_parameters(
    conn: psycopg.Connection[Any], window: Window, include_test: bool, include_banned: bool, odd: Sequence[str] | None
) -> dict[str, Any]:
    return {
        "window": window.id,
        "start": naive(window.start),
        "end": naive(window.end),
        "include_test": include_test,
        "include_banned": include_banned,
        "odd": odd_ids(conn, windows=WindowGrid(window.length)) if odd is None else list(odd),
    }


def _placed(statement: str, windows: WindowGrid) -> bytes:
    """The statement over the rows of a window: those of its windowId where it is an hour, else by their endTime."""
    return statement.replace(_PLACED, _PLACED_BY_ID if windows == HOURLY else _PLACED_BY_TIME).encode()


def outcome_windows(window: Window) -> list[str]:
    """The windowIds under which a market's outcome is looked for: the hours of the window and of the day after."""
    hours = hours_of(window)
    return hours + hours_of(Window(HOURLY.parse(hours[-1]).end, HOURLY.length * (OUTCOME_WINDOWS - 1)))


def hours_of(window: Window) -> list[str]:
    """The windowIds of the game, which are hours, that a window touches."""
    last = HOURLY.of(window.end - timedelta(microseconds=1))
    return HOURLY.between(HOURLY.of(window.start).id, last.id)


def naive(time: datetime) -> datetime:
    """The time in UTC without its zone, as the game keeps times."""
    return time.astimezone(UTC).replace(tzinfo=None)
