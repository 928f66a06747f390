"""Held-out agents, bounds of a window, and what its samples amount to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.sampling import (
    HELD_OUT,
    bounded,
    effective_samples,
    hash_draw,
    held_out_agents,
    is_held_out,
    policy_lags,
)
from tests.domain.test_datasets import answers, build, kinds, recorded, scores
from tests.ledger.values import sample

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=8)


def grouped(sizes: list[int], **changes: Any) -> list[Sample]:
    return [
        sample(100 * group + n, group=f"g{group}", **changes) for group, size in enumerate(sizes) for n in range(size)
    ]


def kept(samples: list[Sample]) -> Counter[str]:
    return Counter(each.group for each in samples if each.trains_as != "skip")


class TestHeldOut:
    def test_of_few_agents_at_most_one_is_held_out(self) -> None:
        out = [f"a{n}" for n in range(200) if is_held_out(f"a{n}", 0.1)][:3]
        kept = [f"a{n}" for n in range(200) if not is_held_out(f"a{n}", 0.1)]
        first = next(
            agent for agent in out if all(hash_draw("held out", agent) <= hash_draw("held out", o) for o in out)
        )
        assert held_out_agents([*out, kept[0]], 0.1) == {first}
        assert held_out_agents(kept[:4], 0.1) == frozenset()
        assert held_out_agents(out[:2], 0.1) == frozenset()
        assert held_out_agents([*out, *kept[:7]], 0.1) == set(out), "of ten agents and more the hash alone decides"

    def test_about_the_share_of_the_agents_is_and_stays_so(self) -> None:
        agents = [f"agent-{n}" for n in range(4000)]
        tenth = {agent for agent in agents if is_held_out(agent, 0.1)}
        assert 320 < len(tenth) < 480
        assert tenth < {agent for agent in agents if is_held_out(agent, 0.2)}
        assert not any(is_held_out(agent, 0.0) for agent in agents)

    def test_they_are_kept_and_scored_but_neither_trained_nor_compared(self) -> None:
        dataset = build(answers(40), recorded(40), scores([float(n) for n in range(40)]), held_out_share=0.25)
        out = [each for each in dataset.samples if each.skip_reason == HELD_OUT]
        assert 0 < len(out) < 20
        assert {each.agent_id for each in out} == {a for a in (f"agent-{n}" for n in range(40)) if is_held_out(a, 0.25)}
        assert all(each.reward is not None and each.advantage is None for each in out)
        trained = [each for each in dataset.samples if each.trains_as == "policy_gradient"]
        assert len(trained) == 40 - len(out) == dataset.counts["trainable_samples"]
        assert sum(each.advantage or 0 for each in trained) == pytest.approx(0, abs=1e-9)
        assert dataset.counts[f"skip: {HELD_OUT}"] == len(out)


class TestBounds:
    @given(
        st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 30), st.integers(1, 60), st.integers(0, 3)
    )
    def test_neither_is_passed_and_groups_are_whole(self, sizes: list[int], most: int, tokens: int, seed: int) -> None:
        samples = grouped(sizes)
        found = bounded(samples, most, tokens, seed)
        groups = kept(found)
        assert sum(groups.values()) <= most
        assert sum(each.tokens for each in found if each.trains_as != "skip") <= tokens
        partial = [group for group, count in groups.items() if count < sizes[int(group[1:])]]
        assert len(partial) <= 1
        assert [each.sample_id for each in found] == [each.sample_id for each in samples]
        assert bounded(list(reversed(samples)), most, tokens, seed)[::-1] == found

    def test_a_window_within_its_bounds_is_left_as_it_is(self) -> None:
        samples = grouped([3, 4])
        assert bounded(samples, 7, 21) == bounded(samples) == samples

    def test_the_seed_draws(self) -> None:
        samples = grouped([2] * 20)
        drawn = {tuple(sorted(kept(bounded(samples, 10, seed=seed)))) for seed in range(5)}
        assert len(drawn) == 5

    def test_what_was_skipped_keeps_its_reason(self) -> None:
        skipped = grouped([3], trains_as="skip", skip_reason="group has no spread")
        assert bounded(skipped, 1) == skipped

    def test_what_is_left_out_says_so(self) -> None:
        dataset = build(answers(6), recorded(6), scores([float(n) for n in range(6)]), max_samples=4)
        assert Counter(kinds(dataset)) == {
            ("policy_gradient", None): 4,
            ("skip", "window has more than its bound"): 2,
        }


class TestStrength:
    def test_equal_advantages_count_in_full_and_one_alone_as_one(self) -> None:
        samples = grouped([8], advantage=-0.3)
        assert effective_samples(samples) == pytest.approx(8)
        assert effective_samples([*grouped([8], advantage=0.0), sample(9, advantage=2.0)]) == pytest.approx(1)
        assert effective_samples([]) == effective_samples(grouped([3], trains_as="skip")) == 0

    def test_lags_are_of_trained_answers_of_ours(self) -> None:
        samples = [sample(0), sample(1, policy_step=5), sample(2, policy_step=None), sample(3, trains_as="skip")]
        assert policy_lags(samples, 7) == [4, 2]
