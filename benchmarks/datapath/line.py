"""What the three assets of the data path do with a window, without orchestration.

`PARTS` is the work that the plain way does as well; `ASSETS` all of it, with what is said of it and with the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from babylon_assets.orchestration import freezing, scoring
from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories, training_datasets
from babylon_assets.orchestration.resources import Installation

Parts = Mapping[str, Callable[[Installation, str], Any]]
PARTS: Parts = {
    "copy": raw_trajectories.copy_window,
    "score": scoring.score_window,
    "freeze": freezing.freeze_window,
}
ASSETS: Parts = {
    "copy": raw_trajectories.read,
    "score": scored_trajectories.score,
    "freeze": training_datasets.freeze,
}


def run_line(installation: Installation, window: str) -> None:
    """From the game's rows to the window's dataset."""
    for part in ASSETS.values():
        part(installation, window)
