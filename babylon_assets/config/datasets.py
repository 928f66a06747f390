"""What a window's dataset holds."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE


class DatasetSettings(Group):
    """What a window's dataset holds, and which answers are compared."""

    moment_seconds: Annotated[int, Ge(1), Le(3600)] = variable(
        "MOMENT_SECONDS",
        30,
        "The length of a decision point in seconds. Samples of the same decision point form a group.",
    )
    group_by: Annotated[Literal["moment", "window", "agent"], LOWER_CASE] = variable(
        "GROUP_BY",
        "moment",
        "Which samples form a group: those of one decision point (`moment`), of one window, or of one agent.",
    )
    held_out_share: Annotated[float, Ge(0), Le(0.9)] = variable(
        "HELD_OUT_SHARE",
        0.1,
        "The share of agents, by hash of their id, that are held out of training. "
        "Where it comes to less than one agent of a window, at most one is.",
    )
    min_agents_per_window: Annotated[int, Ge(1)] = variable(
        "MIN_AGENTS_PER_WINDOW", 3, "A window with fewer agents is too thin to train on."
    )
    min_samples_per_window: Annotated[int, Ge(1)] = variable(
        "MIN_SAMPLES_PER_WINDOW", 16, "A window with fewer trainable samples is too thin to train on."
    )
    max_samples_per_window: Annotated[int, Ge(1)] = variable(
        "MAX_SAMPLES_PER_WINDOW", 50_000, "The most samples of a dataset. Of more, TRAIN_SEED draws whole groups."
    )
    max_tokens_per_window: Annotated[int, Ge(1)] = variable(
        "MAX_TOKENS_PER_WINDOW",
        10_000_000,
        "The most trained tokens of a dataset. Of more, TRAIN_SEED draws whole groups.",
    )
    max_gradient_share: Annotated[float, Gt(0), Le(1)] = variable(
        "MAX_GRADIENT_SHARE",
        0.25,
        "The largest share of a window's gradient that one agent, one gateway key or one decision point may give, or "
        "twice an even share where that is more. 1: no limit.",
    )
    include_test_users: bool = variable("INCLUDE_TEST_USERS", False, "Whether agents of test users are trained on.")
    include_banned_users: bool = variable(
        "INCLUDE_BANNED_USERS", False, "Whether agents of banned users are trained on."
    )
