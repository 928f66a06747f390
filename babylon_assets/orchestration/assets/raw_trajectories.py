"""The asset raw_trajectories: an immutable copy of what the environment wrote for one window.

The environment reads its own tables and decodes their rows.
"""

from datetime import UTC, datetime

import dagster as dg

from babylon_assets.domain import feedback_scores
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.site_links import link_samples
from babylon_assets.environments.base import Environment, read_at_one_moment
from babylon_assets.ledger import feedback, trajectory_counts
from babylon_assets.ledger import trajectories as ledger
from babylon_assets.ledger import windows as windows_ledger
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.forgotten_agents import without_forgotten
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.collector import collector_held_off
from babylon_assets.orchestration.metadata import declare, numbers, site_page, texts
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult
from babylon_assets.orchestration.source_tables import TRAJECTORIES, list_counts, list_left_out, source_key
from babylon_assets.report.summary import MOST_IN_QUARANTINE

NAME = "raw_trajectories"
CHECKS = (checks.COMPLETE, checks.QUARANTINE)

DESCRIPTION = f"""
What the agents did in this window, copied from the environment's own tables and not changed afterwards.

- A row is a **trajectory**: one episode of one agent, with the facts of each step and with every call as the policy saw
  and answered it. Outcomes are kept apart, so that no prompt contains hindsight.
- A row that cannot be read goes to **quarantine** with the reason and the place. The rest of the window goes on.
  Bad behaviour is not quarantined: an action that failed stays in and gets a low score.
- What `babylon import` put into the window **stays**, with its rewards, even where the environment has the same
  trajectory. `imported` counts it.
- Rows that are **left out** (evaluation, test and banned users) are counted with the reason, as is what was **dropped**
  because it could not be read.
- A **fingerprint** of the source, outcomes included, says whether anything changed. Unchanged input writes nothing and
  keeps the data version.

The check `{checks.COMPLETE}` stops a window that is not over. The check `{checks.QUARANTINE}` warns when more than
{MOST_IN_QUARANTINE:.0%} of the rows are in quarantine.
"""


def stage(windows: dg.TimeWindowPartitionsDefinition, environment: Environment) -> Stage:
    """The asset's declaration, with one partition per window, and what makes one of them."""
    spec = dg.AssetSpec(
        NAME,
        deps=[source_key(environment, TRAJECTORIES)],
        description=DESCRIPTION,
        kinds={"postgres", "pandas"},
        tags={"babylon/stage": "read"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, windows), make=read)


def read(installation: Installation, window: str, _run_id: str | None = None) -> WindowResult:
    """Copy a window and say what was read."""
    fingerprint, settings = copy_window(installation, window), installation.settings
    with installation.connect() as conn, installation.source_of(conn) as source:
        kept, quarantined = ledger.summary(conn, window), ledger.quarantined(conn, window)
        imported = len(ledger.read_imported_rewards(conn, window))
        left_out = list_left_out(installation.environment, source, window)
        dropped, npcs = trajectory_counts.count_dropped(conn, window), trajectory_counts.count_npcs(conn, window)
    return WindowResult(
        metadata={
            "site_page": site_page(link_samples(window=window)),
            **numbers({**kept._asdict(), "imported": imported, "npcs": npcs}),
            **texts({"rows_left_out": left_out, "dropped": list_counts(dropped)}),
        },
        data_version=fingerprint,
        checks=[
            checks.complete(
                settings.windows.parse(window), datetime.now(UTC), settings.automation.window_grace_minutes
            ),
            checks.little_in_quarantine(window, kept.trajectories, quarantined),
        ],
    )


@collector_held_off()
def copy_window(installation: Installation, window: str) -> str:
    """Copy the window unless what it is made of is what was copied before; returns the fingerprint of the source.

    Rows stream from one connection to the other. All of the source is read in one snapshot, so that the fingerprint is
    that of the very rows that were copied. What was imported into the window stays, and is all of it where there is no
    source.
    """
    environment = installation.environment
    with installation.connect_source() as source, installation.connect() as ours:
        read_at_one_moment(source)
        imported = ledger.imported_hash(ours, window)
        if imported is not None and not environment.has_record(source):
            return _fingerprint(installation, source, ours, window)
        environment.check(source)
        before = windows_ledger.get_window(ours, window)
        fingerprint = _fingerprint(installation, source, ours, window)
        if before is not None and before.fingerprint == fingerprint and _is_whole(ours, before):
            return fingerprint
        ledger.replace_rows(ours, window, without_forgotten(ours, environment.read_window(source, window)))
        copied, kept = _fingerprint(installation, source, ours, window), ledger.summary(ours, window)
        windows_ledger.upsert_window(
            ours, window, fingerprint=copied, trajectories=kept.trajectories, agents=kept.agents
        )
        return copied


def fingerprint_now(installation: Installation, window: str) -> str:
    """The fingerprint of a window as the game has it now."""
    with installation.connect_source() as source, installation.connect() as ours:
        read_at_one_moment(source)
        return _fingerprint(installation, source, ours, window)


def is_current(installation: Installation, window: str) -> bool:
    """Whether a window has a dataset, or needs none, and is made of what the game has of it now; nothing is written."""
    with installation.connect_source() as source, installation.connect() as ours:
        read_at_one_moment(source)
        before = windows_ledger.get_window(ours, window)
        if before is None or before.dataset_id is None or before.status in ("open", "failed"):
            return False
        return before.fingerprint == _fingerprint(installation, source, ours, window) and _is_whole(ours, before)


def is_unchanged(installation: Installation, window: str) -> bool:
    """Whether the environment's rows of a window are those that are kept of it, whatever its fingerprint; read only."""
    environment = installation.environment
    with installation.connect_source() as source, installation.connect() as ours:
        read_at_one_moment(source)
        if not environment.has_record(source):
            return False
        return trajectory_counts.are_kept(
            ours, window, without_forgotten(ours, environment.read_window(source, window))
        )


def _is_whole(ours: Connection, row: windows_ledger.WindowRow) -> bool:
    """Whether as many trajectories are kept of a window as were read."""
    return ledger.summary(ours, row.window_id).trajectories == row.trajectories


def _fingerprint(installation: Installation, source: Connection, ours: Connection, window: str) -> str:
    """The source's fingerprint, of what the steps that are kept of the window name and what was imported as well.

    Where rewards are made of feedback, what was sent of the window is a part of it.
    """
    environment, imported = installation.environment, ledger.imported_hash(ours, window)
    if imported is not None and not environment.has_record(source):
        fingerprint = ledger.fingerprint_with_imports(None, imported)
    else:
        read = environment.fingerprint(source, window, ledger.references(ours, window))
        fingerprint = ledger.fingerprint_with_imports(read, imported)
    chosen = installation.settings.rewards
    judged = feedback.state_of(ours, window) if chosen.scorers or feedback_scores.NAME in chosen.weights else None
    return fingerprint if judged is None else content_id([fingerprint, judged])
