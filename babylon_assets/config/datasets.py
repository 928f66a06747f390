"""What a window's dataset holds."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE


class DatasetSettings(Group):
    """What a window's dataset holds, and which answers are compared."""

    moment_seconds: Annotated[int, Ge(1), Le(3600)] = variable(
        "MOMENT_SECONDS", 30, "Steps in the same slot of so many seconds are compared."
    )
    group_by: Annotated[Literal["moment", "window", "agent"], LOWER_CASE] = variable(
        "GROUP_BY",
        "moment",
        "Whose answers are compared: of the same moment, of the whole window, or of the same agent.",
    )
    held_out_share: Annotated[float, Ge(0), Le(0.9)] = variable(
        "HELD_OUT_SHARE", 0.1, "Share of the agents, by hash of their id, never trained on."
    )
    min_agents_per_window: Annotated[int, Ge(1)] = variable(
        "MIN_AGENTS_PER_WINDOW", 3, "A window with fewer agents is thin and is not trained on."
    )
    min_samples_per_window: Annotated[int, Ge(1)] = variable(
        "MIN_SAMPLES_PER_WINDOW", 16, "A window with fewer trainable samples is thin and is not trained on."
    )
    max_samples_per_window: Annotated[int, Ge(1)] = variable(
        "MAX_SAMPLES_PER_WINDOW", 50_000, "Of more, whole groups are drawn by TRAIN_SEED."
    )
    max_tokens_per_window: Annotated[int, Ge(1)] = variable(
        "MAX_TOKENS_PER_WINDOW", 10_000_000, "The same for the tokens of the answers trained on."
    )
    include_test_users: bool = variable("INCLUDE_TEST_USERS", False, "Train on test users' agents as well.")
    include_banned_users: bool = variable("INCLUDE_BANNED_USERS", False, "Train on banned users' agents as well.")
