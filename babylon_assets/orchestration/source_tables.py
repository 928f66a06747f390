"""The environment's own tables as assets that this project only reads, with what is there now.

They are never materialized here. The sensors note what a window has in them, as observations, for the windows that they
ask a run for, and for no others: a tick costs two queries more then, and nothing while there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import dagster as dg

from babylon_assets.domain.windows import WindowGrid
from babylon_assets.environments.base import Environment, Presence
from babylon_assets.ledger import windows as ledger
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import Status
from babylon_assets.orchestration.metadata import OWNERS, numbers, only_shown
from babylon_assets.orchestration.resources import Installation

TRAJECTORIES, OUTCOMES = "trajectories", "outcomes"


def source_key(environment: Environment, tables: str) -> dg.AssetKey:
    """The asset that stands for the environment's TRAJECTORIES, or for its OUTCOMES."""
    return dg.AssetKey([environment.source_group, tables])


def build_source_tables(environment: Environment, windows: dg.PartitionsDefinition[str]) -> list[dg.AssetSpec]:
    """The assets, external to Dagster, with one partition per window."""
    return [
        dg.AssetSpec(
            source_key(environment, tables),
            description=environment.tables[tables],
            group_name=environment.source_group,
            owners=OWNERS,
            kinds={"postgres", "source"},
            partitions_def=windows,
        )
        for tables in (TRAJECTORIES, OUTCOMES)
    ]


def observations(installation: Installation, windows: Sequence[str], now: datetime) -> list[dg.AssetObservation]:
    """What the environment's tables have of these windows now; nothing is asked of the database for no windows.

    It is only shown: where it cannot be had, the log says why, and the windows are run without it.
    """
    if not windows:
        return []
    seen: list[dg.AssetObservation] = []
    with only_shown("what the source's tables have"):
        seen += _observations(installation, windows, now)
    return seen


def _observations(installation: Installation, windows: Sequence[str], now: datetime) -> list[dg.AssetObservation]:
    grid, environment = installation.settings.windows, installation.environment
    with installation.connect() as conn, installation.source_of(conn) as source:
        presence = environment.presence(source, windows)
        states = ledger.states_since(conn, min(windows))
    grace = installation.settings.automation.window_grace_minutes
    return [
        observation
        for window_presence in presence
        for observation in (
            _rows(environment, window_presence, _overdue(window_presence.window, grid, states, now, grace)),
            _outcomes(environment, window_presence),
        )
    ]


def list_left_out(environment: Environment, conn: Connection, window: str) -> str:
    """How many rows of a window the environment does not read, by reason; empty where it reads all, or has none."""
    return list_counts(environment.count_left_out(conn, window)) if environment.has_record(conn) else ""


def list_counts(counts: Mapping[str, int]) -> str:
    """Counts by name in words, such as `test users: 12`."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _overdue(
    window: str, grid: WindowGrid, states: Mapping[str, Status], now: datetime, grace_minutes: int
) -> float | None:
    """Minutes since the window's grace ended, as long as nothing of it was read."""
    if states.get(window, "open") != "open":
        return None
    return (now - grid.parse(window).end - timedelta(minutes=grace_minutes)) / timedelta(minutes=1)


def _rows(environment: Environment, presence: Presence, overdue: float | None) -> dg.AssetObservation:
    facts = {"trajectories": presence.rows, "agents": presence.agents, "overdue_minutes": overdue}
    return _observation(source_key(environment, TRAJECTORIES), presence.window, facts, presence.rows_newest)


def _outcomes(environment: Environment, presence: Presence) -> dg.AssetObservation:
    facts = dict(presence.outcomes)
    return _observation(source_key(environment, OUTCOMES), presence.window, facts, presence.outcomes_newest)


def _observation(
    key: dg.AssetKey, window: str, facts: Mapping[str, float | int | None], newest: datetime | None
) -> dg.AssetObservation:
    written = {"newest": dg.MetadataValue.timestamp(newest)} if newest is not None else {}
    return dg.AssetObservation(key, partition=window, metadata={**numbers(facts), **written})
