"""A reward on what was written."""

import pandas as pd

from babylon_assets import scorer


@scorer("brevity", version="1", texts=True)
def brevity(steps: pd.DataFrame) -> "pd.Series[float]":
    """1 for an empty answer, 0 for one of 2,000 characters or more; NaN for a step without an answer."""
    return (1 - steps["answer"].str.len() / 2000).clip(0, 1)
