"""The hierarchy of baselines: no sample is lost for want of company, and each is compared with its like only."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.baselines import Likeness, count_levels, mean_of
from babylon_assets.domain.datasets import Dataset, build_dataset
from babylon_assets.domain.grouping import baseline_in, kind_in, level_of
from babylon_assets.domain.trajectories import StepFacts, TrajectoryRecord
from babylon_assets.environments.babylon.words import comparable_kind
from babylon_assets.environments.registry import open_environment
from tests.domain.rows import START_MS, WINDOW, call, record, step

MINUTE = 60_000
POST = {"actionType": "CREATE_POST", "parameters": {}, "success": True}


def acting(agent: str, *minutes: float, **changes: Any) -> TrajectoryRecord:
    """A trajectory of an agent that acts at these minutes."""
    steps = [step(n, timestamp=START_MS + int(at * MINUTE), **changes) for n, at in enumerate(minutes)]
    return record(steps, trajectory_id=agent, agent_id=agent)


def build(records: list[TrajectoryRecord], rewards: list[float], **options: Any) -> Dataset:
    """The dataset of trajectories whose steps have these rewards, in their order."""
    places = [(kept.trajectory_id, fact.step) for kept in records for fact in kept.facts]
    frame = pd.DataFrame(places, columns=["trajectory_id", "step"]).assign(
        reward=rewards, state="final", outcome=rewards
    )
    likeness = Likeness(**{name: options.pop(name) for name in Likeness._fields if name in options})
    return build_dataset(WINDOW, records, {}, frame, "babylon-agent", likeness=likeness, **options)


def compared(dataset: Dataset) -> dict[str, tuple[str, float | None]]:
    """Level and advantage of each sample."""
    return {
        sample.sample_id: (level_of(sample.group), None if sample.advantage is None else round(sample.advantage, 6))
        for sample in dataset.samples
    }


def of_name(fact: StepFacts) -> str:
    return comparable_kind(fact.action_type)


def test_a_window_that_has_company_keeps_its_dataset() -> None:
    records = [acting(f"t{n}", 0, 10) for n in range(3)]
    dataset = build(records, [0.1, 0.2, 0.3, 0.5, 0.7, 0.11], kind_of=of_name, state_seconds=300)
    assert dataset.id == "81cba87c632b6f56781b18b82c5f730b4e55366fc8b5a8c028d3680f3901c568"


def test_agents_who_never_meet_are_compared_in_their_window() -> None:
    dataset = build([acting("a", 0, 7), acting("b", 3, 13), acting("c", 5)], [0.0, 0.2, 0.4, 0.6, 0.8])
    assert compared(dataset) == {
        "a/0/0": ("class", -0.4),
        "a/1/0": ("class", -0.2),
        "b/0/0": ("class", 0.0),
        "b/1/0": ("class", 0.2),
        "c/0/0": ("class", 0.4),
    }
    assert dataset.counts["trainable_samples"] == 5


def test_the_narrowest_level_with_company_is_taken() -> None:
    together, near, apart = [acting("a", 0), acting("b", 0)], [acting("c", 20), acting("d", 22)], [acting("e", 40)]
    other = acting("f", 50)
    records = [*together, *near, *apart, other]
    dataset = build(records, [0.0, 1.0, 0.0, 0.5, 0.2, 0.4], state_seconds=300)
    levels = {name: level for name, (level, _) in compared(dataset).items()}
    assert [levels[f"{name}/0/0"] for name in "abcdef"] == [*["decision_point"] * 2, *["minutes"] * 2, *["class"] * 2]
    assert count_levels(dataset.samples) == {"decision_point": 2, "minutes": 2, "class": 2, "running_mean": 0}


def test_other_steps_of_the_same_trajectory_are_no_company() -> None:
    dataset = build([acting("a", 0, 0.1), acting("b", 9)], [1.0, 0.0, 0.2])
    assert {level for level, _ in compared(dataset).values()} == {"class"}
    alone = build([acting("a", 0, 0.1, 7)], [1.0, 0.0, 0.2])
    assert {sample.skip_reason for sample in alone.samples} == {"group has one sample"}


def test_a_refused_attempt_is_no_company_for_what_followed_it() -> None:
    calls = [call(callId="a", response="I wait"), call(callId="b")]
    records = [acting("a", 0, llmCalls=calls), acting("b", 9)]
    dataset = build(records, [0.8, 0.1], weights={"outcome": 1.0})
    assert {level for level, _ in compared(dataset).values()} == {"class"}


def test_a_post_is_compared_with_posts_and_a_trade_with_trades() -> None:
    posting = [acting(name, 0, action=POST) for name in "cd"]
    dataset = build([acting("a", 0), acting("b", 0), *posting], [-1.0, -0.5, 0.0, 0.1], kind_of=of_name)
    assert [advantage for _, advantage in compared(dataset).values()] == [-0.25, 0.25, -0.05, 0.05]
    assert {kind_in(sample.group) for sample in dataset.samples if sample.agent_id in "cd"} == {"post"}


def test_a_post_among_trades_is_not_compared_with_them() -> None:
    dataset = build([acting("a", 0), acting("b", 0), acting("c", 0, action=POST)], [-1.0, -0.5, 0.0], kind_of=of_name)
    assert compared(dataset)["c/0/0"] == ("decision_point", None)


def test_agents_are_compared_within_their_class() -> None:
    records = [acting(name, at) for name, at in zip("abcd", (0, 9, 18, 27), strict=True)]
    dataset = build(records, [0.0, 1.0, 10.0, 12.0], class_of=lambda kept: "bold" if kept.agent_id in "cd" else "/shy")
    assert [advantage for _, advantage in compared(dataset).values()] == [-0.5, 0.5, -1.0, 1.0]


def test_in_a_first_window_the_only_ones_of_their_classes_are_compared_with_each_other() -> None:
    records = [acting(name, at) for name, at in zip("abc", (0, 9, 18), strict=True)]
    dataset = build(records, [0.0, 0.5, 1.0], class_of=lambda kept: kept.agent_id)
    assert compared(dataset) == {"a/0/0": ("class", -0.5), "b/0/0": ("class", 0.0), "c/0/0": ("class", 0.5)}
    later = build(records, [0.0, 0.5, 1.0], class_of=lambda kept: kept.agent_id, running_mean=lambda *_: 0.25)
    assert {level for level, _ in compared(later).values()} == {"running_mean"}


def test_what_is_alone_in_its_window_is_compared_with_earlier_ones() -> None:
    asked: list[tuple[str, bool]] = []

    def earlier(kind: str, imitated: bool) -> float:
        asked.append((kind, imitated))
        return 0.25

    dataset = build([acting("a", 0, 7)], [0.0, 1.0], running_mean=earlier)
    assert compared(dataset) == {"a/0/0": ("running_mean", -0.25), "a/1/0": ("running_mean", 0.75)}
    assert {baseline_in(sample.group) for sample in dataset.samples} == {0.25}
    assert set(asked) == {("", False)}


def test_of_another_model_what_beats_the_running_mean_is_imitated() -> None:
    lone = acting("a", 0, 7, llmCalls=[call(model="gpt-4o")])
    dataset = build([lone], [0.0, 1.0], running_mean=lambda _kind, imitated: 0.25 if imitated else 9.0)
    assert [(s.trains_as, s.skip_reason) for s in dataset.samples] == [
        ("skip", "worse half of its group"),
        ("sft", None),
    ]


def test_who_asks_for_one_agents_own_answers_gets_them() -> None:
    dataset = build([acting("a", 0, 7), acting("b", 9)], [0.0, 1.0, 0.5], group_mode="agent")
    assert compared(dataset)["a/0/0"] == ("decision_point", -0.5)


def test_answers_that_met_nobody_count_as_decision_points_of_their_own() -> None:
    records = [acting(name, at) for name, at in zip("abcdef", range(0, 54, 9), strict=True)]
    dataset = build([*records, acting("g", 54), acting("h", 54)], [0, 1, 0, 1, 0, 1, 0, 1], max_gradient_share=0.3)
    assert dataset.counts["trainable_samples"] == 8


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CREATE_POST", "post"),
        ("COMMENT_ON_POST", "post"),
        ("FOLLOW_USER", "social"),
        ("BUY_SHARES", ""),
        ("HOLD", ""),
        ("INVALID_ACTION", ""),
        ("SOMETHING_NEW", ""),
    ],
)
def test_kinds_of_the_games_actions(name: str, kind: str) -> None:
    environment = open_environment(Settings(environment="simulated"))
    assert environment.action_kind(StepFacts(0, 0, 0, name, None, None, False)) == kind


def test_a_mean_does_not_depend_on_the_order_of_its_sums() -> None:
    sums = [(0.1, 1), (1e9, 3), (0.2, 2), (-1e9, 1)]
    assert mean_of(sums) == mean_of(reversed(sums)) == round(0.3 / 7, 6)
    assert mean_of([]) is None
