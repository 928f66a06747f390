"""The tags by which Dagster and this project know runs: their windows, their process, the line that they belong to."""

from __future__ import annotations

from collections.abc import Mapping

from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    HIDDEN_TAG_PREFIX,
    PARTITION_NAME_TAG,
    USER_TAG,
)

#: On every run of the line, so that no two of them are launched at once.
LINE_TAG = "babylon/line"
#: The process that executes a run which no code server executes; the UI shows no tag of this prefix.
PROCESS_TAG = f"{HIDDEN_TAG_PREFIX}babylon/process"
#: What the UI names as who launched a run, in its column "Launched by".
LAUNCHED_BY_TAG = USER_TAG
#: States of a run that is queued, starting, running or being cancelled.
UNFINISHED = NOT_FINISHED_STATUSES


def range_tags(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the windows from the first to the last, both included."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def window_range(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """The first and the last window of a run, by its tags; None for a run without windows."""
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG, tags.get(PARTITION_NAME_TAG))
    return None if first is None else (first, tags.get(ASSET_PARTITION_RANGE_END_TAG, first))
