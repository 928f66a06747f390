"""Dagster itself says of a window that was just made that it is in step, and what is not after a change."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from tests.orchestration.assets.conftest import FIRST, SECOND, World
from tests.orchestration.assets.test_ranges import run

DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
LINE = (*DATA, "model_checkpoints", "checkpoint_evaluations", "promoted_model")


def stale(world: World, window: str) -> dict[str, list[str]]:
    """Why each asset of a window is out of step; nothing for those that are in step."""
    graph = world.definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    states = {name: resolver.get_status(dg.AssetKey(name), window) for name in LINE}
    assert StaleStatus.MISSING not in states.values()
    causes = {name: resolver.get_stale_causes(dg.AssetKey(name), window) for name in LINE}
    return {name: [cause.reason for cause in found] for name, found in causes.items() if found}


def test_windows_that_were_just_made_are_in_step(world: World) -> None:
    for window in (FIRST, SECOND):
        world.play(window)
        world.run(window)
    assert (stale(world, FIRST), stale(world, SECOND)) == ({}, {})


def test_what_was_made_from_older_data_is_out_of_step(world: World) -> None:
    world.play(FIRST)
    world.run(FIRST)
    run(world, "raw_trajectories", windows=(FIRST,))
    assert stale(world, FIRST) == {}  # the same content once more
    world.execute('UPDATE public.trajectories SET "updatedAt" = "updatedAt" + interval \'1 second\'')
    run(world, "raw_trajectories", windows=(FIRST,))
    assert stale(world, FIRST)["scored_trajectories"] == ["has a new dependency data version"]
