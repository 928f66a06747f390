"""What a dataset is exported as can be read by those it is for."""

from __future__ import annotations

import json

from babylon_assets.environments.files.exports import art_lines, table_rows
from tests.ledger.values import dataset, sample

DATASET = dataset(
    sample(0, group="g1"),
    sample(1, group="g1", response="buy “yes”"),
    sample(2, group="g2", trains_as="skip", skip_reason="held out", advantage=None),
    sample(3, group="g3", token_ids=None, logprobs=None, policy=None, trains_as="sft"),
)


def test_art_reads_the_groups_that_are_trained_on() -> None:
    from art.utils.trajectory_migration import deserialize_trajectory_groups

    lines = b"".join(art_lines(DATASET)).decode()
    first, second = deserialize_trajectory_groups(lines)
    assert [each.reward for each in first.trajectories] == [0.0, 1 / 3]
    assert [each.metadata["sample_id"] for each in [*first.trajectories, *second.trajectories]] == [
        "t0/0/0",
        "t1/0/0",
        "t3/0/0",
    ]
    *messages, choice = first.trajectories[1].messages_and_choices
    assert [(each["role"], each["content"]) for each in messages] == [
        (message.role, message.content) for message in DATASET.samples[0].messages
    ]
    assert choice.message.content == "buy “yes”"
    assert [(each.token, each.logprob) for each in choice.logprobs.content] == [
        ("token_id:7", -0.1),
        ("token_id:8", -0.2),
        ("token_id:2", -0.3),
    ]
    assert first.trajectories[0].metrics == {"outcome": 0.1, "advantage": 0.5}


def test_the_table_has_every_sample_and_every_field() -> None:
    rows = table_rows(DATASET)
    assert [row["skip_reason"] for row in rows] == [None, None, "held out", None]
    assert {row["dataset_id"] for row in rows} == {DATASET.id}
    assert json.loads(rows[0]["messages"])[1] == {"role": "user", "content": "A yes 40"}
    assert json.loads(rows[0]["components"]) == {"outcome": 0.1, "heuristic": None}
