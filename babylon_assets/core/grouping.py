"""Which samples are compared with each other, and what a reward is worth among them.

What the rewards are made of is in `core.rewards`; what a sample without a usable group becomes, in
`core.datasets`.
"""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

GroupMode = Literal["moment", "window", "agent"]


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
    """The advantage of each row of a frame with `group` and `reward`: the reward less the mean of its group.

    It is not divided by the group's spread (Liu et al. 2025, "Understanding R1-Zero-like training"): once most players
    of a board do the same, what is left of the spread is noise, and dividing by it would train on noise at full weight.
    A reward of NaN takes no part in its group and gets NaN.
    """
    return frame["reward"] - frame.groupby("group", sort=False)["reward"].transform("mean")


def spreads(frame: pd.DataFrame) -> pd.Series[Any]:
    """Largest less smallest reward of each row's group."""
    grouped = frame.groupby("group", sort=False)["reward"]
    return grouped.transform("max") - grouped.transform("min")
