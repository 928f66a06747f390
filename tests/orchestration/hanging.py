"""A run that holds the slot of the pool `training` until it is killed; a program for tests."""

from __future__ import annotations

import sys
import time

import dagster as dg

from babylon_assets.config.settings import load_settings
from babylon_assets.ledger.database import open_database
from babylon_assets.orchestration.jobs import build_line_job
from babylon_assets.orchestration.runtime import Line, open_instance

WINDOW = "2026-11-05T14:00"


def definitions(hang: bool) -> dg.Definitions:
    """One asset in the pool of training, which says so and then hangs."""

    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition(WINDOW, fmt="%Y-%m-%dT%H:00"), pool="training")
    def model_checkpoints() -> None:
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        time.sleep(600 if hang else 0)

    return dg.Definitions(assets=[model_checkpoints], jobs=[build_line_job([model_checkpoints])])


if __name__ == "__main__":
    settings = load_settings()
    with open_instance(settings, open_database(settings)) as instance:
        Line(definitions(hang=True), instance).materialize(WINDOW)
