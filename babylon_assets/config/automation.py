"""What runs by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE, Webhook


class AutomationSettings(Group):
    """What runs by itself, and what it leaves behind."""

    enabled: bool = variable(
        "AUTOMATION", True, "Let `babylon up` run the line for every closed window; false waits to be told."
    )
    window_grace_minutes: Annotated[int, Ge(0), Le(1440)] = variable(
        "WINDOW_GRACE_MINUTES",
        5,
        "How long after its end a window's rows may still come; automation waits for it, a check says so.",
    )
    late_data: Annotated[Literal["carry", "retrain", "ignore"], LOWER_CASE] = variable(
        "LATE_DATA",
        "carry",
        "A trained window whose data changed is scored and frozen again; carry: its new or changed samples join the "
        "next window; retrain: it is trained again on a branch.",
    )
    train_requests: bool = variable(
        "TRAIN_REQUESTS",
        False,
        "Train the windows that the game asks for in training_batches; needs SELECT and UPDATE on that table.",
    )
    nightly_seeds: Annotated[int, Ge(8), Le(100_000)] = variable(
        "NIGHTLY_SEEDS",
        192,
        "Held-out markets of 12 boards that the live policy is examined on in the night after it was promoted.",
    )
    keep_checkpoints: Annotated[int, Ge(1)] | None = variable(
        "KEEP_CHECKPOINTS",
        None,
        "Every night, remove the weights that `babylon prune --keep` of so many would; absent: nothing is removed.",
    )
    keep_run_logs_days: Annotated[int, Ge(1), Le(36_500)] = variable(
        "KEEP_RUN_LOGS_DAYS",
        30,
        "Days for which Dagster's tables keep what a run said; what it made, checked and why it failed stays.",
    )
    show_samples: bool = variable(
        "SHOW_SAMPLES",
        True,
        "Show a dataset's best and worst samples on its page, texts included; Dagster's tables keep what was shown.",
    )
    failure_webhook: Webhook | None = variable(
        "FAILURE_WEBHOOK",
        None,
        "Where a failed run is told, as a POST of JSON with `text`, `run`, `windows` and `reason`.",
        secret=True,
    )
