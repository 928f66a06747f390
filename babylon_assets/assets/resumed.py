"""What a run that continues a failed one need not do again.

Such a run comes from "re-execute from failure" in the UI, or from the daemon where a run died. Dagster continues with
the steps that failed, and a step here has all windows of a range: those that are done are known from what the runs
before have materialized.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import dagster as dg
from dagster._core.storage.tags import ASSET_RESUME_RETRY_TAG, RESUME_RETRY_TAG

from babylon_assets.assets.installation import Installation
from babylon_assets.store.windows import states_since

#: Materializations have pictures in them: so many are held at once.
EVENTS_AT_ONCE = 200


def done_before(
    context: dg.AssetExecutionContext, installation: Installation, assets: Set[dg.AssetKey]
) -> frozenset[str]:
    """The windows of which the runs that this one continues made all of these assets; none for a run of its own.

    A window that is `failed` in the ledger is not done: a check that stops it may have failed after its last asset.
    """
    if not assets or not {RESUME_RETRY_TAG, ASSET_RESUME_RETRY_TAG} & context.run.tags.keys():
        return frozenset()
    made: dict[str, set[dg.AssetKey]] = {}
    for run_id in _runs_before(context.instance, context.run):
        for key, window in _materialized(context.instance, run_id):
            made.setdefault(window, set()).add(key)
    done = {window for window, keys in made.items() if keys >= assets}
    if done:
        with installation.connect() as conn:
            states = states_since(conn, min(done))
        done -= {window for window, state in states.items() if state == "failed"}
        context.log.info(f"{len(done)} windows were done by the run that this one continues")
    return frozenset(done)


def _runs_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[str]:
    """The run that this one continues, the one that that one continued, and so on."""
    before = run.get_parent_run_id()
    while before is not None:
        yield before
        parent = instance.get_run_by_id(before)
        before = parent.get_parent_run_id() if parent is not None else None


def _materialized(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[dg.AssetKey, str]]:
    """Asset and window of each materialization of a run."""
    cursor, more = None, True
    while more:
        found = instance.get_records_for_run(
            run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=EVENTS_AT_ONCE
        )
        for record in found.records:
            made = record.asset_materialization
            if made is not None and made.partition is not None:
                yield made.asset_key, made.partition
        cursor, more = found.cursor, found.has_more
