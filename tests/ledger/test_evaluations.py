"""A measurement is kept once and never changes."""

from __future__ import annotations

from typing import Any

import psycopg

from babylon_assets.ledger import evaluations
from babylon_assets.ledger.checkpoint_register import newest_of_chain, read_register
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.evaluations import COMPARED, Evaluation
from tests.ledger.values import CHAIN, checkpoint, dataset, root, sample


def measurement(**changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "checkpoint_id": "c1",
        "evaluation": "market",
        "version": "1-abc",
        "value": 0.25,
        "low": 0.2,
        "high": 0.3,
        "seeds": [2_000_000_033, 2_000_000_034],
        "results": {"rewards": [0.2, 0.3], "nothing": float("nan")},
    }
    return Evaluation(**{**fields, **changes})


def test_the_first_measurement_stands(conn: psycopg.Connection[Any]) -> None:
    assert evaluations.get(conn, "c1", "market", "1-abc") is None
    kept = evaluations.keep(conn, measurement())
    assert (kept.value, kept.low, kept.high, kept.seeds) == (0.25, 0.2, 0.3, [2_000_000_033, 2_000_000_034])
    assert kept.results == {"rewards": [0.2, 0.3], "nothing": None}
    assert evaluations.keep(conn, measurement(value=0.9)) == kept
    other = evaluations.keep(conn, measurement(version="1-def", value=None, seeds=None, window_id="2026-11-05T14:00"))
    assert (other.value, other.seeds, other.window_id) == (None, None, "2026-11-05T14:00")
    assert [one.version for one in evaluations.of_checkpoint(conn, "c1")] == ["1-abc", "1-def"]


def test_the_reward_of_a_checkpoint_is_what_the_gate_goes_by(conn: psycopg.Connection[Any]) -> None:
    def reward_after(evaluation: str, value: float, version: str = "1") -> float | None:
        kept = measurement(checkpoint_id=made.id, evaluation=evaluation, value=value, version=version)
        evaluations.keep(conn, kept)
        [row] = read_register(conn, ids=[made.id])
        assert row.value == evaluations.read_rewards(conn).get(made.id)  # what the site shows, `babylon chains` prints
        return row.value

    made = root()
    insert_checkpoint(conn, made)
    assert reward_after("off_policy", 0.5) is None
    assert reward_after("snapshot:one", 12_000.0) is None
    assert reward_after("recorded_prompts", 0.3, f"{COMPARED}1") is None  # for `babylon compare` alone
    assert reward_after("recorded_prompts", 0.4) == 0.4  # where there is no benchmark, the gate goes by these
    assert reward_after("market", 0.1) == 0.1
    frozen = dataset(sample(0))
    save_dataset(conn, frozen)
    insert_checkpoint(conn, checkpoint(1, frozen.window, frozen.id, parent_id=made.id))
    assert newest_of_chain(conn, CHAIN, 2) == [f"{CHAIN}@0", f"{CHAIN}@1"]  # evaluated ones first
    assert reward_after("recorded_prompts", 0.6, "2") == reward_after("off_policy", 0.7, "2") == 0.1
