"""The game's own tables as assets that this project only reads: what the line begins with, with what is there now.

They are never materialized here. The sensors note what a window has in them, as observations, for the windows that they
ask a run for, and for no others: a tick costs two queries more then, and nothing while there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg

from babylon_assets.domain.windows import WindowGrid
from babylon_assets.environments.babylon.presence import Presence, presence
from babylon_assets.ledger import windows as ledger
from babylon_assets.ledger.windows import Status
from babylon_assets.orchestration.metadata import OWNERS, numbers
from babylon_assets.orchestration.resources import Installation

GROUP = "game"
TRAJECTORIES, OUTCOMES = dg.AssetKey([GROUP, "trajectories"]), dg.AssetKey([GROUP, "outcomes"])

_ABOUT = {
    TRAJECTORIES: """
The game's table `trajectories`: what its agents saw, answered and did, an episode a row. A row belongs to
the hour of its `windowId`, or of its end where it has none; where windows are no hours, to the one of its end.

Written by the game, read by `raw_trajectories`. Observed when a sensor finds the window to be run: how many rows of how
many agents there are, when the newest was written, and by how much the window is overdue, if nothing of it was read.
""",
    OUTCOMES: """
What became of the trades: the game's tables `market_outcomes` and `Market`, beside its prices and its agents' trades.

Written by the game, hours or days after the window as well, and read by `scored_trajectories`. Observed when a sensor
finds the window to be run: rows of `market_outcomes`, markets that end in the window and those of them that are
resolved, and when the newest was written.
""",
}


def build_game_tables(windows: dg.TimeWindowPartitionsDefinition) -> list[dg.AssetSpec]:
    """The assets, external to Dagster, with one partition per window."""
    return [
        dg.AssetSpec(
            key,
            description=about,
            group_name=GROUP,
            owners=OWNERS,
            kinds={"postgres", "source"},
            partitions_def=windows,
        )
        for key, about in _ABOUT.items()
    ]


def observations(installation: Installation, windows: Sequence[str], now: datetime) -> list[dg.AssetObservation]:
    """What the game's tables have of these windows now; nothing is asked of the database for no windows."""
    if not windows:
        return []
    grid = installation.settings.windows
    with installation.connect() as conn:
        found = presence(conn, windows, grid)
        states = ledger.states_since(conn, min(windows))
    grace = installation.settings.automation.window_grace_minutes
    return [
        observation
        for each in found
        for observation in (_rows(each, _overdue(each.window, grid, states, now, grace)), _outcomes(each))
    ]


def _overdue(
    window: str, grid: WindowGrid, states: Mapping[str, Status], now: datetime, grace_minutes: int
) -> float | None:
    """Minutes since the window's grace ended, as long as nothing of it was read."""
    if states.get(window, "open") != "open":
        return None
    return (now - grid.parse(window).end - timedelta(minutes=grace_minutes)) / timedelta(minutes=1)


def _rows(found: Presence, overdue: float | None) -> dg.AssetObservation:
    told = {"trajectories": found.rows, "agents": found.agents, "overdue_minutes": overdue}
    return _observation(TRAJECTORIES, found.window, told, found.rows_newest)


def _outcomes(found: Presence) -> dg.AssetObservation:
    told = {"outcomes": found.outcomes, "markets": found.markets, "markets_resolved": found.resolved}
    return _observation(OUTCOMES, found.window, told, found.outcomes_newest)


def _observation(
    key: dg.AssetKey, window: str, told: Mapping[str, float | int | None], newest: datetime | None
) -> dg.AssetObservation:
    written = {"newest": dg.MetadataValue.timestamp(newest)} if newest is not None else {}
    return dg.AssetObservation(key, partition=window, metadata={**numbers(told), **written})
