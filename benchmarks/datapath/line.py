"""What the three assets of the data path do with a window, without orchestration and without their checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from babylon_assets.assets import raw_trajectories, scored_trajectories, training_datasets
from babylon_assets.assets.installation import Installation

PARTS: dict[str, Callable[[Installation, str], Any]] = {
    "copy": raw_trajectories.copy_window,
    "score": scored_trajectories.score_window,
    "freeze": training_datasets.freeze_window,
}


def run_line(installation: Installation, window: str) -> None:
    """From the game's rows to the window's dataset."""
    for part in PARTS.values():
        part(installation, window)
