"""Nothing that is only shown fails a window: rewards that no picture has a scale for, and faults of the pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.definitions import build_definitions
from babylon_assets.domain import baselines, datasets
from babylon_assets.domain.sampling import HELD_OUT
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.orchestration import carry_over, examples
from babylon_assets.orchestration.assets import (
    checkpoint_evaluations,
    model_checkpoints,
    promoted_model,
    scored_trajectories,
    training_datasets,
)
from babylon_assets.orchestration.metadata import NOT_SHOWN
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Line
from tests.orchestration.assets.conftest import FIRST, SECOND, World

#: A reward for half of the agents and one for the others, by decision point.
PAIRS = ((0.3, 0.1 + 0.2), (1e16, 1e16 + 2), (1e308, -1e308), (math.nan, 0.5), (1.0, 0.0), (1e308, 1e308))
SCORER = f"""
import numpy as np
from babylon_assets import scorer
nan = float("nan")
PAIRS = {PAIRS!r}

@scorer("extreme", "1")
def extreme(steps):
    agents = sorted(set(steps["agent_id"]))
    half = steps["agent_id"].map(lambda name: agents.index(name) % 2)
    return np.array([PAIRS[step % len(PAIRS)][which] for step, which in zip(steps["step"], half)])
"""
ASSETS = ("scored_trajectories", "training_datasets", "model_checkpoints", "checkpoint_evaluations", "promoted_model")


@pytest.fixture
def extreme(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world.play(FIRST)
    (tmp_path / "extreme_scorers.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield world.having(scorers=("extreme_scorers:extreme",), reward_weights={"extreme": 1.0})
    sys.modules.pop("extreme_scorers", None)


def test_rewards_that_differ_by_rounding_or_by_all_of_a_float_fail_no_window(extreme: World) -> None:
    extreme.run(FIRST)
    row = extreme.row(FIRST)
    assert row.status == "trained", row.reason
    for asset in ASSETS:
        assert NOT_SHOWN not in extreme.metadata(asset, FIRST), asset
    assert row.dataset_id is not None
    with extreme.database.connect() as conn:
        samples = load_dataset(conn, row.dataset_id).samples
    pairs: dict[int, set[str | None]] = {}
    for sample in samples:
        if sample.skip_reason != HELD_OUT:
            pairs.setdefault(sample.step % len(PAIRS), set()).add(sample.skip_reason)
    assert pairs[0] == pairs[1] == {baselines.NO_RANGE}
    assert pairs[2] | pairs[5] <= {datasets.NO_NUMBER, datasets.NOT_YET_KNOWN}
    assert None not in pairs[3]
    assert pairs[4] == {None}
    made = extreme.metadata("model_checkpoints", FIRST)
    assert math.isfinite(made["loss"]) and made["loss"] != 0
    assert extreme.check("scored_trajectories", "reward_range").passed


def test_a_fault_of_what_is_shown_fails_no_window(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a bug of a picture")

    for module, names in {
        scored_trajectories: ("draw_rewards", "_metadata"),
        carry_over: ("metadata",),
        training_datasets: ("draw_rewards", "draw_sample_fates", "_strength", "policy_lags"),
        model_checkpoints: ("draw_curve", "draw_training_steps"),
        checkpoint_evaluations: ("_metadata",),
        promoted_model: ("measure_served",),
        examples: ("of_dataset",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, broken)
    world.play(SECOND)
    installation = Installation(world.settings, world.database, heard=broken)
    Line(build_definitions(world.settings, installation=installation), world.instance).materialize(SECOND)
    assert world.row(SECOND).status == "trained"
    for asset in ASSETS:
        assert "ZeroDivisionError: a bug of a picture" in world.metadata(asset, SECOND)[NOT_SHOWN]
    assert world.metadata("model_checkpoints", SECOND)["trained_tokens"] > 0
