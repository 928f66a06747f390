"""What a tick of the sensor costs among a million trajectories in a year of hours: it looks at the last three days."""

from __future__ import annotations

from babylon_assets.environments.babylon import game_record
from babylon_assets.ledger.database import Connection, Database
from benchmarks.datapath.measure import milliseconds
from benchmarks.report import Row, at_most

TRAJECTORIES, WINDOWS = 1_000_000, 8760
FIRST = "2026-01-01T00:00"
_FILL = """
    INSERT INTO public.trajectories (id, "trajectoryId", "agentId", "startTime", "endTime", "durationMs", "windowId",
        "stepsJson", "rewardComponentsJson", "metricsJson", "metadataJson", "totalReward", "episodeLength",
        "finalStatus", "updatedAt")
    SELECT 'i' || n, 't' || n, 'agent-' || n %% 200, at, at, 1, to_char(at, 'YYYY-MM-DD"T"HH24":00"'),
           '[]', '{}', '{}', '{}', 0, 0, 'completed', at
    FROM generate_series(1, 1000000) AS n,
         LATERAL (SELECT %s::timestamp + (n %% 8760) * interval '1 hour' AS at) AS placed"""
_USERS = """
    INSERT INTO public."User" (id, username, "isAgent", "updatedAt")
    SELECT 'agent-' || n, 'agent-' || n, true, now() FROM generate_series(0, 199) AS n ON CONFLICT DO NOTHING"""
_ODD = """UPDATE public.trajectories SET "windowId" = 'benchmark-' || right(id, 1) WHERE id LIKE '%00000'"""
_PLAINLY = 'SELECT "windowId", count(DISTINCT "agentId"), count(*) FROM public.trajectories GROUP BY 1 ORDER BY 1'


def fill(conn: Connection, first: str = FIRST) -> None:
    """A million trajectories in a year of hours from the first one on, and nothing else; some ids are no window's."""
    conn.execute("TRUNCATE public.trajectories")
    conn.execute(_USERS)
    conn.execute(_FILL, [first])
    conn.execute(_ODD)
    conn.execute("VACUUM ANALYZE trajectories")


def listing(database: Database) -> list[Row]:
    """Fill the game's table, among its windows some odd ids, and list."""
    with database.connect_autocommit() as conn:
        fill(conn)
        newest = game_record.list_windows(conn)[-1].window
        since = f"2026-12-29{newest[10:]}"
        return [
            at_most(
                "a tick: the windows of three days",
                milliseconds(lambda: game_record.list_windows(conn, since)),
                "ms",
                25,
            ),
            Row("  all windows of the year", milliseconds(lambda: game_record.list_windows(conn)), "ms"),
            Row("  all windows, the plain way", milliseconds(lambda: conn.execute(_PLAINLY).fetchall()), "ms"),
            Row("  ids that are no window's, among all", milliseconds(lambda: game_record.odd_ids(conn)), "ms"),
        ]
