"""The asset raw_trajectories: an immutable copy of what the game wrote for one window.

The game's tables are read in `game.source`, rows are decoded in `core.decoding`.
"""

import dagster as dg

from babylon_assets.assets.facts import CODE_VERSION, FRAMES, GROUP, OWNERS, Materialized, numbers
from babylon_assets.assets.failures import told_apart
from babylon_assets.assets.installation import Installation
from babylon_assets.core.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.game import source
from babylon_assets.store import trajectories as ledger
from babylon_assets.store import windows as windows_ledger

NAME = "raw_trajectories"
QUARANTINE_CHECK = "little_in_quarantine"
MOST_IN_QUARANTINE = 0.05

DESCRIPTION = f"""
What the agents did in this hour, copied once from the game's own tables and never changed afterwards.

- One row per **trajectory**: an episode of one agent, with every call exactly as the policy saw and answered it, and
  the facts of each step. Results of an action are kept apart, so that no prompt ever contains hindsight.
- A row that cannot be read goes into **quarantine** with the reason and the place; it costs the window nothing else.
  Bad behaviour is never quarantined: an action that failed stays in and is scored low.
- Reading is guarded by a **fingerprint** of the source: the same rows again write nothing.

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
        window, settings = context.partition_key, installation.settings
        with told_apart(context, installation), installation.connect() as conn:
            source.check_tables(conn)
            test, banned = settings.include_test_users, settings.include_banned_users
            horizon = settings.perp_horizon_minutes
            fingerprint = source.fingerprint(
                conn, window, include_test=test, include_banned=banned, horizon_minutes=horizon
            )
            decoded = list(source.read_window(conn, window, include_test=test, include_banned=banned))
            records = [row for row in decoded if isinstance(row, TrajectoryRecord)]
            quarantined = [row for row in decoded if isinstance(row, Quarantined)]
            ledger.replace_window(conn, window, records, quarantined)
            agents = len({record.agent_id for record in records})
            windows_ledger.upsert_window(
                conn, window, fingerprint=fingerprint, trajectories=len(records), agents=agents
            )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(fingerprint),
            metadata=numbers(
                {
                    "trajectories": len(records),
                    "agents": agents,
                    "steps": sum(len(record.facts) for record in records),
                    "calls": sum(len(record.samples) for record in records),
                    "quarantined": len(quarantined),
                }
            ),
            check_results=[_quarantine_check(window, len(records), quarantined)],
        )

    return raw_trajectories


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
