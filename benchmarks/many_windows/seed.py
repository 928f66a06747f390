"""A few real windows: played through a gateway and trained by `babylon demo`, in a home of their own.

The market has its usual size, so that a window has as many agents, samples, evaluations and events as in the demo. The
base model is taught for a moment only: its answers are worse than the demo's, and as many and as long.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from babylon_assets.config.settings import Settings, prepare_libraries, subprocess_environment
from babylon_assets.ledger.database import Database, migrate, open_database
from babylon_assets.ledger.windows import list_windows

#: Windows that are played and trained; the other windows of a home are copies of these.
WINDOWS = 8


def play_seed(home: Path) -> tuple[Settings, Database]:
    """The home with its windows, made if it is not there yet."""
    settings = Settings(home=home)
    database = open_database(settings)
    migrate(database)
    settings = settings.replace(base_model=str(_teach_base(settings)), training_backend="embedded")
    with database.connect() as conn:
        left = WINDOWS - len(list_windows(conn))
    if left > 0:
        _play(settings, database, left)
    return settings, database


def _play(settings: Settings, database: Database, windows: int) -> None:
    subprocess.run(
        [sys.executable, "-m", "babylon_assets", "demo", "--windows", str(windows)],
        env=subprocess_environment(settings, database.dagster_url),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _teach_base(settings: Settings) -> Path:
    prepare_libraries(settings)
    from babylon_assets.environments.simulated.base_model import Recipe, ensure_base_model
    from babylon_assets.serving.engine.engine import Engine

    recipe = Recipe(steps=60, batch=32, least_signal=0, least_valid=0.5)
    return ensure_base_model(settings.home, recipe, open_policy=Engine)
