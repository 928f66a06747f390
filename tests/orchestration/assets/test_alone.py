"""A game in which no two agents ever act at the same time: each is trained all the same, and the pages say how."""

from __future__ import annotations

from babylon_assets.cli.list_scores import score_rows
from babylon_assets.domain.baselines import count_levels
from babylon_assets.ledger.datasets import load_heads
from tests.orchestration.assets.conftest import FIRST, World


def test_agents_who_never_meet_are_trained_and_compared_within_the_window(world: World) -> None:
    world = world.having(simulation_company="alone", simulation_agents_per_room=3, held_out_share=0)
    world.play(FIRST)
    world.run(FIRST)
    row = world.row(FIRST)
    assert row.status == "trained", row.reason
    with world.database.connect() as conn:
        heads = load_heads(conn, row.dataset_id or "")
        rows = list(score_rows(world.settings, conn, FIRST))
    trained = [head for head in heads if head.trains_as != "skip"]
    assert len(heads) == 3 * 8
    assert count_levels(heads)["class"] == len(trained) >= len(heads) - 6
    metadata = world.metadata("training_datasets", FIRST)
    assert metadata["compared_with"]["its class in the window"] == len(trained)
    assert "group has one sample" not in metadata["skipped_because"]
    assert {line["compared_with"] for line in rows if line["advantage"] is not None} == {"its class in the window"}
    assert metadata["largest_share_of_one_decision_point"] < 0.25
