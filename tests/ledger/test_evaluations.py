"""A measurement is kept once and never changes."""

from __future__ import annotations

from typing import Any

import psycopg

from babylon_assets.ledger import evaluations
from babylon_assets.ledger.evaluations import Evaluation


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
