"""A scorer that turns the rewards of one hour around, as a person who tampers with them would: `POISONED_WINDOW`."""

from __future__ import annotations

import os

import pandas as pd

from babylon_assets.core.scorers import scorer


@scorer("turned", version="1")
def turned(steps: pd.DataFrame) -> pd.Series:
    """Twice the loss of what a step was worth in that hour, nothing in all others."""
    worth = steps["worth"].astype("float64")
    return (-2 * worth).where(steps["window"] == os.environ["POISONED_WINDOW"], 0.0).where(worth.notna())
