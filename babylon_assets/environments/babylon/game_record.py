"""Reads the game's record: its windows and their trajectories. What became of the trades is read in `outcomes`.

Only SELECT is ever issued, so a role that may do nothing else is enough. Every function takes an open connection
whose session runs in UTC; times come back aware. What a row means is decided in `core`; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg

from babylon_assets.domain.json_nesting import decode_cut
from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.domain.windows import HOURLY, Window, WindowGrid
from babylon_assets.environments.babylon import decoding
from babylon_assets.environments.babylon.clocks import NO_TIME, read_clock
from babylon_assets.environments.babylon.decoding import SourceRow, decode_row
from babylon_assets.environments.babylon.logged_calls import call_columns
from babylon_assets.environments.babylon.schema import Schema, look_at_schema
from babylon_assets.environments.babylon.statements import (
    JUDGMENTS,
    RESOLVED_AT,
    attribute_columns,
    companies,
    more_lines,
)
from babylon_assets.environments.base import SourceWindow

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
    FROM public.trajectories t LEFT JOIN public."User" u ON u.id = t."agentId"{config}
    WHERE {placed}
      AND t."isTrainingData" AND NOT t."isEvaluation"
      AND (NOT coalesce(u."isTest", false) OR %(include_test)s)
      AND (NOT coalesce(u."isBanned", false) OR %(include_banned)s)"""
_CONFIG = """
    LEFT JOIN public."UserAgentConfig" c ON c."userId" = t."agentId\""""
#: Why a row of a window is left out; the first reason that holds.
_LEFT_OUT = """
    SELECT CASE WHEN t."isEvaluation" THEN 'evaluation' WHEN NOT t."isTrainingData" THEN 'no training data'
                WHEN u."isTest" AND NOT %(include_test)s THEN 'test users'
                WHEN u."isBanned" AND NOT %(include_banned)s THEN 'banned users' END AS reason, count(*)
    FROM public.trajectories t LEFT JOIN public."User" u ON u.id = t."agentId"
    WHERE {placed} GROUP BY 1 ORDER BY 2 DESC, 1"""
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
           {_TIME.format("endTime")}, t."finalStatus", t."finalBalance", t."finalPnL", t."stepsJson",
           {{attributes}}, {{metadata}}, {{calls}}
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
    "bytea",
    "bytea",
    "bytea",
)
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
        SELECT t."trajectoryId" AS id, t."agentId" AS agent, t."updatedAt" AS at, octet_length(t."stepsJson") AS size,
               {{attributes}} AS attributes
        {_OF_WINDOW}),
    trades AS (
        SELECT a.* FROM public."AgentTrade" a WHERE a."agentUserId" IN (SELECT agent FROM kept)
          AND a."executedAt" >= %(before)s AND a."executedAt" < %(until)s),
    markets AS (
        SELECT "marketId" AS id FROM trades WHERE "marketId" IS NOT NULL UNION SELECT unnest(%(instruments)s::text[])),
    tickers AS (SELECT ticker FROM trades WHERE ticker IS NOT NULL UNION SELECT unnest(%(instruments)s::text[])),
    companies AS ({{companies}}),
    lines AS (
        SELECT 0 AS part, %(version)s::text AS key, '' AS line
        UNION ALL
        SELECT 1, id, concat_ws('|', agent, extract(epoch FROM at), size, attributes) FROM kept
        UNION ALL
        SELECT 2, id, concat_ws('|', "agentUserId", action, side, amount, price, extract(epoch FROM "executedAt"))
        FROM trades
        UNION ALL
        SELECT 3, id, concat_ws('|', resolved, resolution, extract(epoch FROM {{market_time}})) FROM public."Market"
        WHERE id IN (SELECT id FROM markets)
        UNION ALL
        SELECT 4, s.id, s.price::text FROM public."StockPrice" s
        WHERE s."organizationId" IN (SELECT organization FROM companies)
          AND s."timestamp" >= %(before)s AND s."timestamp" < %(until)s
        UNION ALL
        SELECT 6, p.id, concat_ws('|', p."yesPrice", p."noPrice", extract(epoch FROM p."createdAt"))
        FROM public."PredictionPriceHistory" p JOIN markets m ON m.id = p."marketId"
        WHERE p."createdAt" >= %(before)s AND p."createdAt" < %(quoted_until)s
        UNION ALL
        SELECT 7, last.id, concat_ws('|', last."yesPrice", last."noPrice")
        FROM markets m CROSS JOIN LATERAL (
            SELECT p.* FROM public."PredictionPriceHistory" p WHERE p."marketId" = m.id
            AND p."createdAt" < %(before)s ORDER BY p."createdAt" DESC LIMIT 1) AS last{{more}}),
    joined AS (
        SELECT coalesce(string_agg(concat_ws('|', part, key, line), E'\\n' ORDER BY part, key COLLATE "C"), '') AS text
        FROM lines)
    SELECT encode(sha256(convert_to(text, 'UTF8')), 'hex') FROM joined"""


def has_game(conn: psycopg.Connection[Any]) -> bool:
    """Whether the database holds a game at all; what is wrong with one that is not whole, `check_tables` says."""
    row = conn.execute("SELECT to_regclass('public.trajectories')").fetchone()
    return bool(row and row[0] is not None)


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
    schema: Schema | None = None,
    judged: bool = False,
) -> str:
    """A hash, computed by the server, of all that a window's records and outcomes are made from.

    It covers the rows' ids, update times and lengths, their agents' trades, the markets of these trades with their
    resolutions and quotes, the stock prices, market_outcomes, and the version of decoding. Markets and tickers that no
    trade names, but a step does, are covered if `instruments` has them; `odd` is as for `read_window`.
    """
    span, schema = windows.parse(window), schema or look_at_schema(conn)
    parameters = _window_parameters(conn, span, include_test, include_banned, odd)
    ahead = read_clock(conn, _placed(_PLACED, windows), parameters) if schema.has_clock else NO_TIME
    early, late = min(ahead, NO_TIME), max(ahead, NO_TIME)
    parameters |= {
        "before": naive(span.start - BEFORE + early),
        "until": naive(span.end + HORIZONS_AFTER * timedelta(minutes=horizon_minutes) + late),
        "quoted_until": naive(span.end + late),
        "instruments": sorted(instruments),
        "version": decoding.VERSION,
        "outcome_windows": outcome_windows(span),
    }
    judgments = (JUDGMENTS,) if judged and schema.has("reward_judgments") else ()
    row = conn.execute(_statement(_FINGERPRINT, windows, schema, judgments), parameters).fetchone()
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
    schema: Schema | None = None,
) -> Iterator[TrajectoryRecord | Quarantined]:
    """Stream the rows of a window, in no particular order, each once; memory is bounded by the longest row.

    A row belongs to the hour of its windowId, or to that in which it ended where that is null or one of the `odd_ids`,
    which are looked for if `odd` does not give them; where windows are no hours, to the one in which it ended.
    Evaluation rows and rows that are not training data are left out, as are those of test and banned users unless
    asked for. The connection can do nothing else until the iterator is exhausted or closed.
    """
    parameters = _window_parameters(conn, windows.parse(window), include_test, include_banned, odd)
    schema = schema or look_at_schema(conn)
    statement, rules = _statement(_READ_WINDOW, windows, schema), schema.game.rules
    with conn.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        copy.set_types(_READ_TYPES)
        for trajectory, agent, given, *values, columns, metadata, calls in copy.rows():
            values += [_attributes(columns, metadata), calls]
            source = SourceRow(window, given, trajectory, agent, *values)
            yield decode_row(source, rules)


def count_left_out(
    conn: psycopg.Connection[Any],
    window: str,
    *,
    include_test: bool = False,
    include_banned: bool = False,
    odd: Sequence[str] | None = None,
    windows: WindowGrid = HOURLY,
) -> dict[str, int]:
    """How many rows of a window `read_window` leaves out, by reason, most first."""
    parameters = _window_parameters(conn, windows.parse(window), include_test, include_banned, odd)
    rows = conn.execute(_placed(_LEFT_OUT, windows).encode(), parameters)
    return {reason: count for reason, count in rows if reason is not None}


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    """What is read of a row's `metadataJson`. The rest of it may be hindsight."""

    archetype: Any = None
    scenario_profile: Any = None
    tick_type: Any = None


_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def _attributes(columns: bytes | None, metadata: bytes | None) -> dict[str, str]:
    """What a row says of its agent; its columns go before its metadata."""
    named: dict[str, str] = {}
    if metadata:
        try:
            read = msgspec.structs.asdict(decode_cut(_decode_metadata, metadata))
            named = {name: value for name, value in read.items() if isinstance(value, str) and value}
        except (msgspec.MsgspecError, ValueError):
            named = {}
    if columns:
        named |= msgspec.json.decode(columns, type=dict[str, str])
    return {name: value.replace("\0", "\ufffd") for name, value in named.items()}


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


def _placed(statement: str, windows: WindowGrid) -> str:
    """The statement over the rows of a window: those of its windowId where it is an hour, else by their endTime."""
    return statement.replace(_PLACED, _PLACED_BY_ID if windows == HOURLY else _PLACED_BY_TIME)


def _statement(template: str, windows: WindowGrid, schema: Schema, lines: Sequence[str] = ()) -> bytes:
    """A statement over what is there of the game's tables; a fingerprint's has more lines."""
    more = "".join(f"\n        UNION ALL\n        {line}" for line in (*more_lines(schema), *lines))
    parts = {
        "{config}": _CONFIG if schema.has("UserAgentConfig") else "",
        "{attributes}": attribute_columns(schema),
        "{metadata}": 't."metadataJson"' if schema.has("trajectories", "archetype", "metadataJson") else "NULL",
        "{calls}": call_columns(schema),
        "{market_time}": '"updatedAt"' if not schema.game.rules.winners_share else RESOLVED_AT,
        "{companies}": companies("SELECT ticker FROM tickers", schema),
        "{more}": more,
    }
    for name, part in parts.items():
        template = template.replace(name, part)
    return _placed(template, windows).encode()


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
