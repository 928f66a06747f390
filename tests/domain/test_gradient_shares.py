"""One agent, one key and one decision point decide only so much of what a window teaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.domain.datasets import draft_dataset, scores_by_step
from babylon_assets.domain.gradient_shares import OVER_SHARE, largest_shares
from tests.domain.rows import WINDOW, call, record, step
from tests.domain.test_datasets import MODEL, Recorded

Rewards = Sequence[Sequence[float]]


def window(rewards: Rewards, share: float, keys: dict[int, str] | None = None) -> Any:
    """The draft of a window in which each agent has a step at each decision point, with these rewards."""
    records, calls, rows = [], {}, []
    for agent, row in enumerate(rewards):
        steps = []
        for point, reward in enumerate(row):
            name = f"call-{agent}-{point}"
            steps.append(step(point, llmCalls=[call(callId=name)]))
            calls[name] = Recorded(agent_id=f"a{agent}", key_name=(keys or {}).get(agent))
            rows.append({"trajectory_id": f"t{agent}", "step": point, "reward": reward, "state": "final"})
        records.append(record(steps, trajectory_id=f"t{agent}", agent_id=f"a{agent}"))
    hashes = {each.trajectory_id: "0" * 64 for each in records}
    scores = scores_by_step(pd.DataFrame(rows))
    return draft_dataset(WINDOW, records, calls, scores, MODEL, hashes, max_gradient_share=share)


def drawn(agents: int, points: int, loud: Sequence[int] = (), by: float = 1.0) -> list[list[float]]:
    """Rewards in [-1, 1] of which those of some agents are larger than the others'."""
    return [
        [((agent * 7 + point * 5) % 11 - 5) / 5 * (by if agent in loud else 0.05) for point in range(points)]
        for agent in range(agents)
    ]


def skipped(draft: Any) -> int:
    return int(draft.counts.get(f"skip: {OVER_SHARE}", 0))


def test_a_window_in_which_nobody_gives_too_much_stays_as_it_is() -> None:
    even = drawn(16, 12, range(16))
    assert window(even, 0.25).id == window(even, 1.0).id
    assert max(window(even, 0.25).shares.values()) <= 0.25


def test_an_agent_gives_at_most_its_share() -> None:
    loud = drawn(16, 12, [3])
    assert window(loud, 1.0).shares["agent"] > 0.4
    bounded = window(loud, 0.25)
    assert bounded.shares["agent"] <= 0.25 and 0 < skipped(bounded) < 12
    assert {head.agent_id for head in bounded.samples if head.skip_reason == OVER_SHARE} == {"a3"}
    trained = [head for head in bounded.samples if head.trains_as != "skip"]
    for group in {head.group for head in trained}:
        assert sum(head.advantage or 0 for head in trained if head.group == group) == pytest.approx(0, abs=1e-12)


def test_a_key_gives_at_most_its_share_or_twice_that_of_its_agents() -> None:
    loud = drawn(16, 12, [3, 4, 5])
    keys = {agent: "mallory" if agent in (3, 4, 5) else "game" for agent in range(16)}
    assert window(loud, 1.0, keys).shares["key"] > 0.6
    bounded = window(loud, 0.25, keys)
    assert skipped(bounded) > 0
    trained = [head for head in bounded.samples if head.trains_as != "skip"]
    theirs = sum(abs(head.advantage or 0) for head in trained if head.agent_id in ("a3", "a4", "a5"))
    assert theirs <= 2 * 3 / 16 * sum(abs(head.advantage or 0) for head in trained) * (1 + 1e-9)


def test_a_decision_point_gives_at_most_its_share() -> None:
    rewards = [[(agent % 5 - 2) / 2 * (1 if point == 2 else 0.02) for point in range(12)] for agent in range(16)]
    assert window(rewards, 1.0).shares["decision_point"] > 0.8
    bounded = window(rewards, 0.25)
    loudest = {head.group for head in bounded.samples if head.skip_reason == OVER_SHARE}
    assert len(loudest) == 1
    trained = [head for head in bounded.samples if head.trains_as != "skip"]
    kept = [head for head in trained if head.group in loudest]
    assert bounded.shares["decision_point"] <= 0.25 or len(kept) == 2


def test_one_key_for_everybody_is_nobodys_loss() -> None:
    even = drawn(16, 12, range(16))
    assert skipped(window(even, 0.25, dict.fromkeys(range(16), "game"))) == 0


def test_the_only_good_answer_of_a_small_window_is_kept() -> None:
    rewards = [[1.0 if agent == 4 else 0.0] for agent in range(30)]
    assert skipped(window(rewards, 0.25)) == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=6, max_size=6), min_size=2, max_size=12),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_bounds_end_and_the_order_of_rows_changes_nothing(rewards: Rewards, share: float) -> None:
    draft = window(rewards, share)
    assert msgspec.structs.asdict(window(rewards, share))["id"] == draft.id
    assert largest_shares(draft.samples, {}).keys() <= {"agent", "decision_point"}
