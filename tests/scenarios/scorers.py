"""Scorers of users who do harm, on purpose or not."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from babylon_assets import scorer


@scorer("turned", version="1")
def turned(steps: pd.DataFrame) -> pd.Series:
    """Turns the rewards of the hour `POISONED_WINDOW` around: twice the loss of what a step was worth."""
    worth = steps["worth"].astype("float64")
    return (-2 * worth).where(steps["window"] == os.environ["POISONED_WINDOW"], 0.0).where(worth.notna())


@scorer("fragile", version="1")
def fragile(steps: pd.DataFrame) -> pd.Series:
    """Has nothing to say, and fails in the hour `BROKEN_WINDOW` until the file `MENDED` is there."""
    if (steps["window"] == os.environ["BROKEN_WINDOW"]).any() and not Path(os.environ["MENDED"]).exists():
        raise ValueError("a table of prices is missing")
    return steps["worth"].astype("float64") * 0
