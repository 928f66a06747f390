"""What a materialization was made from, in Dagster's words: the version of each parent, and the event that had it.

Dagster calls a partition unsynced when an event of a parent is newer than the one named here and has another version.
Nothing of ours goes by that; it is for a person to see. What a window is made from is decided by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.data_version import (
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from babylon_assets.domain.windows import WindowGrid


def input_tags(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    parents: set[dg.AssetKey],
    window: str,
    known: Mapping[str, str],
    windows: WindowGrid,
) -> dict[str, str]:
    """The tags of a window's materialization that name what it was made from.

    Args:
        parents: what the asset depends on; on itself, that is the window before. The game's tables have no versions.
        known: versions of parents that were used, by the last part of their names; of others, the newest counts.
    """
    tags: dict[str, str] = {}
    for parent in parents:
        partition = windows.previous(window) if parent == key else window
        record = instance.get_latest_data_version_record(parent, is_source=False, partition_key=partition)
        newest = extract_data_version_from_entry(record.event_log_entry) if record is not None else None
        version = (newest or DEFAULT_DATA_VERSION).value
        tags[get_input_data_version_tag(parent)] = version if parent == key else known.get(parent.path[-1], version)
        tags[get_input_event_pointer_tag(parent)] = NULL_EVENT_POINTER if record is None else str(record.storage_id)
    return tags
