"""The asset raw_trajectories: an immutable copy of what the game wrote for one window.

The game's tables are read in `game.source`, rows are decoded in `core.decoding`.
"""

from collections.abc import Sequence

import dagster as dg

from babylon_assets.assets.collector import without_collector
from babylon_assets.assets.facts import CODE_VERSION, FRAMES, GROUP, OWNERS, Materialized, numbers
from babylon_assets.assets.failures import told_apart
from babylon_assets.assets.installation import Installation
from babylon_assets.core.trajectories import Quarantined
from babylon_assets.game import source
from babylon_assets.store import trajectories as ledger
from babylon_assets.store import windows as windows_ledger
from babylon_assets.store.database import Connection

NAME = "raw_trajectories"
QUARANTINE_CHECK = "little_in_quarantine"
MOST_IN_QUARANTINE = 0.05

DESCRIPTION = f"""
What the agents did in this hour, copied once from the game's own tables and never changed afterwards.

- One row per **trajectory**: an episode of one agent, with every call exactly as the policy saw and answered it, and
  the facts of each step. Results of an action are kept apart, so that no prompt ever contains hindsight.
- A row that cannot be read goes into **quarantine** with the reason and the place; it costs the window nothing else.
  Bad behaviour is never quarantined: an action that failed stays in and is scored low.
- Reading is guarded by a **fingerprint** of the source, outcomes included: unchanged input writes nothing and keeps the
  data version.

The check `{QUARANTINE_CHECK}` warns when more than {MOST_IN_QUARANTINE:.0%} of the rows are in quarantine.
"""


def build_raw_trajectories(windows: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset, with one partition per window."""

    @dg.asset(
        name=NAME,
        partitions_def=windows,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres", "pandas"},
        tags={"babylon/stage": "read"},
        code_version=CODE_VERSION,
        description=DESCRIPTION,
        io_manager_key=FRAMES,
        check_specs=[
            dg.AssetCheckSpec(QUARANTINE_CHECK, asset=NAME, description="Nearly every row of the window could be read.")
        ],
    )
    def raw_trajectories(
        context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
    ) -> Materialized:
        window = context.partition_key
        with told_apart(context, installation):
            fingerprint = copy_window(installation, window)
            with installation.connect() as conn:
                kept, quarantined = ledger.summary(conn, window), ledger.quarantined(conn, window)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(fingerprint),
            metadata=numbers(kept._asdict()),
            check_results=[_quarantine_check(window, kept.trajectories, quarantined)],
        )

    return raw_trajectories


@without_collector
def copy_window(installation: Installation, window: str) -> str:
    """Copy the window unless what it is made of is what was copied before; returns the fingerprint of the source.

    Rows stream from one connection to the other. All of the game is read in one snapshot, so that the fingerprint is
    that of the very rows that were copied.
    """
    with installation.connect() as game, installation.connect() as ours:
        source.snapshot(game)
        source.check_tables(game)
        odd = installation.once_a_run("odd ids", lambda: source.odd_ids(game))
        before = windows_ledger.get_window(ours, window)
        found = _fingerprint(installation, game, ours, window, odd)
        if before is not None and before.fingerprint == found and _is_whole(ours, before):
            return found
        settings = installation.settings
        test, banned = settings.include_test_users, settings.include_banned_users
        rows = source.read_window(game, window, include_test=test, include_banned=banned, odd=odd)
        ledger.replace_rows(ours, window, rows)
        copied, kept = _fingerprint(installation, game, ours, window, odd), ledger.summary(ours, window)
        windows_ledger.upsert_window(
            ours, window, fingerprint=copied, trajectories=kept.trajectories, agents=kept.agents
        )
        return copied


def _is_whole(ours: Connection, row: windows_ledger.WindowRow) -> bool:
    """Whether as many trajectories are kept of a window as were read."""
    return ledger.summary(ours, row.window_id).trajectories == row.trajectories


def _fingerprint(
    installation: Installation, game: Connection, ours: Connection, window: str, odd: Sequence[str]
) -> str:
    """The source's fingerprint, of what the steps that are kept of the window name as well."""
    settings = installation.settings
    return source.fingerprint(
        game,
        window,
        include_test=settings.include_test_users,
        include_banned=settings.include_banned_users,
        horizon_minutes=settings.perp_horizon_minutes,
        instruments=ledger.named_instruments(ours, window),
        odd=odd,
    )


def _quarantine_check(window: str, read: int, quarantined: list[Quarantined]) -> dg.AssetCheckResult:
    share = len(quarantined) / max(1, read + len(quarantined))
    reasons = sorted({f"{row.reason} ({row.place})" for row in quarantined})[:10]
    return dg.AssetCheckResult(
        check_name=QUARANTINE_CHECK,
        passed=share <= MOST_IN_QUARANTINE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(quarantined)} of {read + len(quarantined)} rows could not be read",
        metadata={"window": window, "quarantined_share": share, "reasons": reasons},
    )
