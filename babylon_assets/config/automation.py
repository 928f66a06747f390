"""What runs by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE, Webhook


class AutomationSettings(Group):
    """What runs by itself, and what it leaves behind."""

    enabled: bool = variable("AUTOMATION", True, "Whether `babylon up` runs the line for every closed window.")
    window_grace_minutes: Annotated[int, Ge(0), Le(1440)] = variable(
        "WINDOW_GRACE_MINUTES",
        5,
        "How many minutes after its end a window still waits for rows.",
    )
    late_data: Annotated[Literal["carry", "retrain", "ignore"], LOWER_CASE] = variable(
        "LATE_DATA",
        "carry",
        "What happens when data of a trained window changes. `carry`: its new or changed samples join the "
        "next window; `retrain`: the window is trained again on a branch; `ignore`: it is scored again only.",
    )
    train_requests: bool = variable(
        "TRAIN_REQUESTS",
        False,
        "Whether windows are trained that the game asks for in training_batches, with AUTOMATION or without. "
        "This needs SELECT and UPDATE on that table.",
    )
    nightly_seeds: Annotated[int, Ge(8), Le(100_000)] = variable(
        "NIGHTLY_SEEDS",
        192,
        "How many held-out markets, of 12 boards each (4 in the game's style), evaluate the served policy in the night "
        "after its promotion.",
    )
    keep_checkpoints: Annotated[int, Ge(1)] | None = variable(
        "KEEP_CHECKPOINTS",
        None,
        "How many checkpoints keep their weights when `babylon prune` runs every night. Without it all do.",
    )
    keep_call_tokens_days: Annotated[int, Ge(1), Le(36_500)] | None = variable(
        "KEEP_CALL_TOKENS_DAYS",
        None,
        "How many days recorded calls keep their tokens and log-probabilities; `babylon prune` removes older ones. "
        "A window that is frozen later has their texts only. Without it all stay.",
    )
    keep_run_logs_days: Annotated[int, Ge(1), Le(36_500)] = variable(
        "KEEP_RUN_LOGS_DAYS",
        30,
        "How many days run logs stay in Dagster's database. What a run made and checked stays.",
    )
    show_samples: bool = variable(
        "SHOW_SAMPLES",
        True,
        "Whether a dataset's page in Dagster shows its best and worst samples. Their texts stay in Dagster's database.",
    )
    failure_webhook: Webhook | None = variable(
        "FAILURE_WEBHOOK",
        None,
        "The address that a failed run is posted to, as JSON with `text`, `run`, `windows` and `reason`.",
        secret=True,
    )
