"""Windows of which the environment has no row: they are passed, and leave nothing behind in our tables.

A range that is picked in the UI holds every hour between its ends. An hour without a row that is recorded as `thin`
would be a line in every list of windows, and nothing was there to be thin.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import dagster as dg

from babylon_assets.ledger import windows
from babylon_assets.orchestration.metadata import texts
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult

EMPTY = "empty"
NOTHING = "the environment has no row of this window; nothing was read, and nothing is kept of it"


def passing_unrecorded(stage: Stage) -> Stage:
    """The stage, but for windows that were never recorded: these are green, and the stage does nothing of them."""
    return Stage(stage.spec, stage.checks, partial(_make, stage))


def _make(stage: Stage, installation: Installation, window: str, run_id: str) -> WindowResult:
    if not is_unrecorded(installation, window):
        return stage.make(installation, window, run_id)
    return WindowResult(
        metadata=texts({"status": EMPTY, "reason": NOTHING}),
        checks=[dg.AssetCheckResult(check_name=check.name, passed=True, description=NOTHING) for check in stage.checks],
        data_version=EMPTY,
    )


def is_unrecorded(installation: Installation, window: str) -> bool:
    """Whether a window is over and neither the environment nor our tables have a row of it."""
    settings, environment = installation.settings, installation.environment
    if settings.windows.parse(window).end > datetime.now(UTC):
        return False
    with installation.connect() as conn, installation.source_of(conn) as source:
        if windows.get_window(conn, window) is not None or not environment.has_record(source):
            return False
        environment.check(source)
        if environment.presence(source, [window])[0].rows:
            return False
        misplaced = environment.misplaced_rows(source)  # placed by their time, which `presence` does not look at
        return not misplaced or window not in {row.window for row in environment.list_windows(source, window)}
