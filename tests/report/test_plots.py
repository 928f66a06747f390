"""The pictures: they are drawn from whatever there is, and show it."""

from __future__ import annotations

import base64
import re
import struct
from xml.etree import ElementTree

import pytest

from babylon_assets.report import pictures
from babylon_assets.report.pictures import CurvePoint


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def points(count: int) -> list[CurvePoint]:
    references = {"random": 0.0, "expert": 0.1, "oracle": 0.45}
    return [
        CurvePoint(f"2026-11-{5 + hour // 24:02d}T{hour % 24:02d}:00", hour / 60, references) for hour in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 5, 24, 72])
def test_a_learning_curve_of_any_length(count: int) -> None:
    width, height = size(pictures.learning_curve(points(count)))
    assert width > height > 300


def test_a_curve_shows_its_references() -> None:
    alone = [CurvePoint(point.window, point.reward, {}) for point in points(24)]
    assert pictures.learning_curve(points(24)) != pictures.learning_curve(alone)


def test_the_thick_line_is_the_mean_of_the_last_five() -> None:
    import numpy as np

    smooth = pictures._trailing_mean(np.array([1.0, 2, 3, 4, 5, 6]))
    assert smooth.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]


def shapes(svg: bytes) -> tuple[list[ElementTree.Element], str]:
    """The bars, and all that is written."""
    root = ElementTree.fromstring(svg)
    assert int(root.attrib["width"]) > int(root.attrib["height"]) > 150
    [_, *bars] = root.iter("{http://www.w3.org/2000/svg}rect")
    return bars, " ".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("rewards", [[], [0.5], [float("nan")], [0.1, -0.2, float("nan")] * 50, [1e9, -1e-9]])
def test_a_histogram_of_any_rewards(rewards: list[float]) -> None:
    known = [reward for reward in rewards if reward == reward]
    bars, words = shapes(pictures.reward_histogram(rewards, "Rewards & <more>"))
    assert bool(bars) == bool(known)
    assert words.startswith("Rewards & <more>")
    assert ("not yet" in words) == (len(known) < len(rewards))


def test_a_histogram_shows_where_the_rewards_are_and_their_mean() -> None:
    bars, words = shapes(pictures.reward_histogram([0.0, 0.0, 0.0, 1.0]))
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == pytest.approx(3 * heights[-1], rel=0.01)
    assert heights[0] > 100
    assert set(heights[1:-1]) == {0.0}
    assert "mean +0.250" in words


def test_groups_are_marked_where_their_means_are() -> None:
    drawn = pictures.reward_histogram([0.0, 0.0, 1.0, 1.0], groups=[0.0, 0.5, 1.0]).decode()
    at = [float(place) for place in re.findall(r'd="M([0-9.]+) [0-9.]+v5"', drawn)]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1]) and at[0] < at[1]
    assert "means of 3 groups" in drawn


def test_where_the_samples_went_has_a_bar_for_each_fate() -> None:
    counts = {"samples": 12, "policy_gradient": 4, "recompute": 2, "sft": 1, "skip: held out": 3, "skip: <old>": 2}
    bars, words = shapes(pictures.samples_went(counts, 5))
    assert [round(float(bar.attrib["width"]) / float(bars[0].attrib["width"]) * 6) for bar in bars] == [6, 1, 3, 2, 5]
    for said in ("(12)", "trainable", "sft", "skipped: held out", "skipped: <old>", "rows in quarantine"):
        assert said in words


def step(number: int, **more: float) -> dict[str, float]:
    names = ("entropy", "kl_to_behaviour", "ratio_min", "ratio_mean", "ratio_max", "clipped_share", "grad_norm")
    return {"loss": -0.1 * number, "tokens": 700.0, "seconds": 0.2, **dict.fromkeys(names, number / 7), **more}


@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_steps_of_any_number_are_drawn(count: int) -> None:
    steps = [step(number) for number in range(count)]
    drawn = ElementTree.fromstring(pictures.training_steps(steps))
    circles = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == count * 9  # seven panels, one of them with three lines


def test_an_undone_step_and_each_metric_are_seen() -> None:
    steps = [step(1), step(2)]
    assert pictures.training_steps(steps) != pictures.training_steps([step(1), step(2, undone=1.0)])
    for name in (*step(1), "logprob_mean"):
        assert pictures.training_steps(steps) != pictures.training_steps([step(1), step(2, **{name: 5.0})]), name
    hosted = {"loss": 0.1, "tokens": 5.0, "seconds": 0.0}
    assert b"entropy" not in pictures.training_steps([hosted])
    assert pictures.training_steps([hosted]).count(b"<circle") == 1


def test_the_same_numbers_give_the_same_picture() -> None:
    assert pictures.learning_curve(points(24)) == pictures.learning_curve(points(24))


@pytest.mark.parametrize(
    ("image", "kind"), [(pictures.reward_histogram([0.1, 0.2]), "svg+xml"), (pictures.learning_curve([]), "png")]
)
def test_a_picture_in_markdown_needs_no_server(image: bytes, kind: str) -> None:
    markdown = pictures.as_markdown(image, "rewards")
    assert markdown.startswith(f"![rewards](data:image/{kind};base64,")
    assert base64.b64decode(markdown.partition("base64,")[2].rstrip(")")) == image
