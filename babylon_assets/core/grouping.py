"""Which samples are compared with each other, and what a reward is worth among them.

What the rewards are made of is in `core.rewards`; what a sample without a usable group becomes, in
`core.datasets`.
"""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

GroupMode = Literal["moment", "window", "agent"]
#: Added to the spread when an advantage is normalised, as ART does.
SPREAD_FLOOR = 1e-6


def group_key(
    window: str, moment_ms: int, moment_seconds: float, mode: GroupMode = "moment", agent_id: str = ""
) -> str:
    """The key of the group that a sample belongs to.

    Args:
        moment_ms: epoch milliseconds of the market that the policy saw.
        moment_seconds: with mode `moment`, times in the same slot of this length are the same moment.
        mode: `moment` compares agents at the same moment of a window, `window` all of it, `agent` an agent
            with itself.
    """
    if mode == "window":
        return window
    if mode == "agent":
        return f"{window}/{agent_id}"
    return f"{window}/{int(moment_ms // (1000 * moment_seconds))}"


def advantages(frame: pd.DataFrame) -> pd.Series[Any]:
    """The advantage of each row of a frame with `group` and `reward`: (r - mean) / (population spread +
    1e-6).

    This is ART's and GRPO's. A reward of NaN takes no part in its group and gets NaN.
    """
    grouped = frame.groupby("group", sort=False)["reward"]
    centred = frame["reward"] - grouped.transform("mean")
    spread = (centred**2).groupby(frame["group"], sort=False).transform("mean") ** 0.5
    return centred / (spread + SPREAD_FLOOR)


def spreads(frame: pd.DataFrame) -> pd.Series[Any]:
    """Largest less smallest reward of each row's group."""
    grouped = frame.groupby("group", sort=False)["reward"]
    return grouped.transform("max") - grouped.transform("min")
