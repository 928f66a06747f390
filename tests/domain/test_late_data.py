"""Late samples: which of a trained window's new dataset were not trained, and how they join another window's."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.late_data import aged, carried, late_reason, late_samples, trained_samples
from babylon_assets.domain.sampling import TOO_OLD
from tests.domain.rows import WINDOW
from tests.domain.test_datasets import answers, build, recorded, scores

EARLIER, GROUP = "2026-11-05T13:00", "2026-11-05T13:00/1"


def of_rewards(*rewards: float | None, **options: object) -> Dataset:
    known = [float("nan") if reward is None else reward for reward in rewards]
    return build(answers(len(rewards)), recorded(len(rewards)), scores(known), **options)


def late_names(rebuilt: Dataset, trained: Dataset) -> list[str]:
    return [one.sample_id for one in late_samples(rebuilt, trained_samples(trained))]


def test_what_came_later_is_late_and_what_was_there_is_not() -> None:
    """The advantages of the first two move with the third; they were trained once, which is enough."""
    before, after = of_rewards(1.0, 0.0), of_rewards(1.0, 0.0, 0.5)
    assert late_names(after, before) == ["t2/0/0"]
    assert late_names(after, after) == []


def test_an_outcome_that_is_known_later_is_late_and_so_is_a_reward_that_was_rewritten() -> None:
    before = of_rewards(1.0, 0.0, None, 0.25)
    assert late_names(of_rewards(1.0, 0.0, 0.5, 0.75), before) == ["t2/0/0", "t3/0/0"]


def test_a_reward_that_hardly_moved_is_not_late() -> None:
    before = of_rewards(1.0, 0.0, 0.5)
    assert late_names(of_rewards(0.91, 0.09, 0.5), before) == []
    assert late_names(of_rewards(0.89, 0.11, 0.5), before) == ["t0/0/0", "t1/0/0"]


def test_a_text_that_was_rewritten_is_late() -> None:
    before = of_rewards(1.0, 0.0)
    first = msgspec.structs.replace(before.samples[0], response="another")
    after = msgspec.structs.replace(before, samples=[first, *before.samples[1:]])
    assert late_names(after, before) == ["t0/0/0"]


def late_pair() -> Dataset:
    """A window of two late samples in a group of four."""
    return of_rewards(1.0, 0.0, 0.25, 0.75)


def joined(**options: object) -> Dataset:
    """Another window of three samples, joined by two late ones."""
    late = [msgspec.structs.replace(one, trajectory_id=f"late-{one.trajectory_id}") for one in late_pair().samples[2:]]
    late = [
        msgspec.structs.replace(one, sample_id=f"late-{one.sample_id}", window=EARLIER, group=GROUP) for one in late
    ]
    return of_rewards(1.0, 0.0, 0.5, carried=late, **options)


def test_a_late_sample_joins_with_its_window_its_group_and_its_advantage() -> None:
    dataset, origin = joined(), late_pair()
    assert [one.sample_id for one in carried(dataset)] == ["late-t2/0/0", "late-t3/0/0"]
    assert [one.advantage for one in carried(dataset)] == [one.advantage for one in origin.samples[2:]] == [-0.25, 0.25]
    assert [one.response for one in carried(dataset)] == [one.response for one in origin.samples[2:]]
    assert {one.group for one in carried(dataset)} == {GROUP}
    assert (dataset.counts["samples"], dataset.counts["carried_samples"], dataset.counts["carried_trajectories"]) == (
        *(5, 2, 2),
    )
    own = [one for one in dataset.samples if one.window == WINDOW]
    assert own == of_rewards(1.0, 0.0, 0.5).samples
    assert dataset.id == joined().id != of_rewards(1.0, 0.0, 0.5).id


def test_what_there_is_no_room_for_is_not_in_the_dataset() -> None:
    full = joined(max_samples=5)
    assert full.id == joined().id
    sizes = {seed: len(carried(joined(max_samples=3, seed=seed))) for seed in range(8)}
    assert set(sizes.values()) <= {0, 2}
    assert 0 in sizes.values()
    assert "carried_samples" not in joined(max_samples=3, seed=min(s for s in sizes if not sizes[s])).counts


def test_a_trajectory_that_the_window_has_itself_is_not_taken_from_another() -> None:
    late = [msgspec.structs.replace(one, window=EARLIER) for one in late_pair().samples[:1]]
    assert of_rewards(1.0, 0.0, carried=late).id == of_rewards(1.0, 0.0).id


def test_a_policy_that_is_too_far_behind_by_then_is_skipped() -> None:
    sample = late_pair().samples[0]
    assert sample.policy_step == 3
    assert aged(sample, 8, 5) == sample
    old = aged(sample, 9, 5)
    assert (old.trains_as, old.skip_reason) == ("skip", TOO_OLD)


def test_a_window_says_what_became_of_its_late_samples() -> None:
    begins, ends = "its data changed after training", f"`babylon train {WINDOW} --branch` trains beside it"
    assert late_reason(WINDOW, {}, 0) == f"{begins}; the chain stays as it is, {ends}"
    said = late_reason(WINDOW, {EARLIER: 1}, 2)
    assert f"1 late sample carried into {EARLIER}; 2 late samples wait for the next training" in said
    changed = late_reason(WINDOW, {}, 1, datetime(2026, 11, 30, 12, 51, tzinfo=UTC))
    assert changed.startswith(f"{begins}, on 2026-11-30 at 12:51 UTC; 1 late sample waits for the next training; the")
