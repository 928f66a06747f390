"""The pictures of a window: they are drawn from whatever there is, and show it."""

from __future__ import annotations

import math
import time
from typing import Any
from xml.etree import ElementTree

import pytest

from babylon_assets.report.pictures import (
    MOST_MARKS,
    MOST_STEPS,
    MeasuredPolicy,
    draw_evaluations,
    draw_rewards,
    draw_sample_fates,
    draw_training_steps,
)
from tests.report.values import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
NAN, INF = math.nan, math.inf


def shapes(svg: str) -> tuple[list[ElementTree.Element], str]:
    """The bars, and all that is written."""
    root = ElementTree.fromstring(svg)
    assert int(root.attrib["width"]) > int(root.attrib["height"]) > 150
    [_, *bars] = root.iter(f"{SVG}rect")
    return bars, " ".join(text.text or "" for text in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("rewards", [[], [0.5], [float("nan")], [0.1, -0.2, float("nan")] * 50, [1e9, -1e-9]])
def test_a_histogram_of_any_rewards(rewards: list[float]) -> None:
    known = [reward for reward in rewards if reward == reward]
    bars, words = shapes(draw_rewards(rewards, "Rewards & <more>"))
    assert bool(bars) == bool(known)
    assert words.startswith("Rewards & <more>")
    assert ("not yet" in words) == (len(known) < len(rewards))


def test_a_histogram_shows_where_the_rewards_are_and_their_mean() -> None:
    bars, words = shapes(draw_rewards([0.0, 0.0, 0.0, 1.0]))
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == pytest.approx(3 * heights[-1], rel=0.01)
    assert heights[0] > 100
    assert set(heights[1:-1]) == {0.0}
    assert "mean 0.2500" in words


def test_groups_are_marked_where_their_means_are() -> None:
    drawn = draw_rewards([0.0, 0.0, 1.0, 1.0], groups=[[0.0, 0.0], [0.0, 1.0, NAN], [1.0], [NAN]])
    at = [float(line.attrib["x1"]) for line in ElementTree.fromstring(drawn).findall(f"{SVG}line[@class='group']")]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1]) and at[0] < at[1]
    assert "means of 3 groups" in drawn


#: What numpy has no bins for, and what no mean or scale holds.
EXTREME: list[list[Any]] = [
    [0.3, 0.1 + 0.2],
    [1e16, 1e16 + 2],
    [1e308, -1e308],
    [1e308, 1e308, 1e308],
    [1.79e308, -1.79e308],
    [5e-324, 0.0, -5e-324],
    [NAN, INF, -INF, None],
    [0.25, NAN, INF, None, "0.5", "half", 10**400],
]


@pytest.mark.parametrize("rewards", EXTREME)
def test_no_reward_is_too_much_for_a_histogram(rewards: list[Any]) -> None:
    drawn = draw_rewards(rewards, groups=[rewards, rewards[:1], []])
    bars, _ = shapes(drawn)
    for bar in bars:
        assert all(0 <= float(bar.attrib[name]) <= 600 for name in ("x", "y", "width", "height"))
    assert not {"nan", "inf"} & set(drawn.replace('"', " ").split())


def test_rewards_that_differ_by_rounding_are_one_bar() -> None:
    for rewards in EXTREME[:2]:
        bars, _ = shapes(draw_rewards(rewards))
        assert [float(bar.attrib["height"]) > 0 for bar in bars].count(True) == 1


@pytest.mark.parametrize("title", [HOSTILE, "\x00\x1b]0;x\x07", "\ud800", "]]>", "<!-- & -->"])
def test_no_title_breaks_the_file(title: str) -> None:
    counts = {"samples": 2, f"skip: {title}": 2}
    for drawn in (
        draw_rewards([0.1], title),
        draw_training_steps([step(1)], title),
        draw_sample_fates(counts, 0, title),
    ):
        assert ElementTree.fromstring(drawn.encode()).findtext(f"{SVG}title")


def test_where_the_samples_went_has_a_bar_for_each_fate() -> None:
    counts = {"samples": 12, "policy_gradient": 4, "recompute": 2, "sft": 1, "skip: held out": 3, "skip: <old>": 2}
    bars, words = shapes(draw_sample_fates(counts, 5))
    assert [round(float(bar.attrib["width"]) / float(bars[0].attrib["width"]) * 6) for bar in bars] == [6, 1, 3, 2, 5]
    for said in ("(12)", "trainable", "sft", "skipped: held out", "skipped: <old>", "rows in quarantine"):
        assert said in words


def test_no_name_of_a_row_is_cut_at_the_edge() -> None:
    reason = "more than its share of the window"
    fates = draw_sample_fates({"samples": 3, f"skip: {reason}": 2, f"skip: {HOSTILE * 9}": 1}, 0)
    branch = "babylon-agent+2026-11-05T14@25 (its parent, served, base model)"
    policies = draw_evaluations({"market": [MeasuredPolicy(branch, 0.4, 0.3, 0.5)]})
    for drawn, name in ((fates, f"skipped: {reason}"), (policies, branch[:50])):
        ends = ElementTree.fromstring(drawn).findall(f"{SVG}text[@class='end']")
        assert any((text.text or "").startswith(name) for text in ends)
        assert all(len(text.text or "") * 7.2 < float(text.attrib["x"]) for text in ends)


def test_policies_have_a_dot_and_an_interval_on_one_scale() -> None:
    drawn = draw_evaluations(
        {
            "market": [MeasuredPolicy("a@2 (this)", 0.4, 0.3, 0.5), MeasuredPolicy("a@0 (base model)", 0.1, 0.0, 0.2)],
            "off-policy estimate": [MeasuredPolicy("a@2 (this)", 0.4), MeasuredPolicy("a@0 (base model)", NAN, NAN)],
        }
    )
    tree = ElementTree.fromstring(drawn)
    dots = [float(dot.attrib["cx"]) for dot in tree.findall(f"{SVG}circle")]
    assert dots[0] == dots[2] > dots[1]
    intervals = [
        (float(line.attrib["x1"]), float(line.attrib["x2"])) for line in tree.findall(f"{SVG}line[@class='interval']")
    ]
    assert [low < dot < high for (low, high), dot in zip(intervals, dots, strict=False)] == [True, True]
    words = " ".join(text.text or "" for text in tree.iter(f"{SVG}text"))
    assert all(said in words for said in ("market", "off-policy estimate", "a@0 (base model)", "0.4000"))
    assert "circle" not in draw_evaluations({})


def step(number: int, **more: float) -> dict[str, float]:
    names = ("entropy", "kl_to_behaviour", "ratio_min", "ratio_mean", "ratio_max", "clipped_share", "grad_norm")
    return {"loss": -0.1 * number, "tokens": 700.0, "seconds": 0.2, **dict.fromkeys(names, number / 7), **more}


@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_steps_of_any_number_are_drawn(count: int) -> None:
    steps = [step(number) for number in range(count)]
    drawn = ElementTree.fromstring(draw_training_steps(steps))
    circles = drawn.findall(f"{SVG}circle")
    assert len(circles) == count * 9  # seven panels, one of them with three lines


def test_an_undone_step_and_each_metric_are_seen() -> None:
    steps = [step(1), step(2)]
    assert draw_training_steps(steps) != draw_training_steps([step(1), step(2, undone=1.0)])
    for name in (*step(1), "logprob_mean"):
        assert draw_training_steps(steps) != draw_training_steps([step(1), step(2, **{name: 5.0})]), name
    hosted = {"loss": 0.1, "tokens": 5.0, "seconds": 0.0}
    assert "entropy" not in draw_training_steps([hosted])
    assert draw_training_steps([hosted]).count("<circle") == 1


@pytest.mark.parametrize("number", [None, NAN, INF, -1e308, 1e308, "much", 10**400])
def test_steps_with_missing_and_impossible_metrics_are_drawn(number: Any) -> None:
    steps: list[dict[str, Any]] = [step(1), {"loss": number}, {}, {"tokens": number, "seconds": 0}, {"seconds": number}]
    drawn = draw_training_steps([*steps, {**step(2), **dict.fromkeys(step(2), number)}])
    circles = ElementTree.fromstring(drawn).findall(f"{SVG}circle")
    places = [float(circle.attrib[name]) for circle in circles for name in ("cx", "cy")]
    assert places and all(0 <= place <= 1000 for place in places)
    assert draw_training_steps([{}, {}]).count("<circle") == 0


def test_much_is_bounded_in_size_and_time() -> None:
    started = time.process_time()
    steps = draw_training_steps([step(number) for number in range(20_000)])
    rewards = draw_rewards([number / 7 for number in range(20_000)], groups=[[number] for number in range(20_000)])
    fates = draw_sample_fates({f"skip: reason {number}": number for number in range(1000)}, 0)
    assert steps.count("<circle") == 9 * MOST_STEPS
    assert rewards.count('class="group"') == MOST_MARKS
    assert "988 other reasons" in fates
    assert max(map(len, (steps, rewards, fates))) < 400_000
    assert time.process_time() - started < 5


def test_the_same_numbers_give_the_same_picture() -> None:
    assert draw_training_steps([step(1)]) == draw_training_steps([step(1)])
