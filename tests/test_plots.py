"""The pictures: they are drawn from whatever there is, and show it."""

from __future__ import annotations

import base64
import struct

import pytest

from babylon_assets import plots
from babylon_assets.plots import CurvePoint


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def points(count: int) -> list[CurvePoint]:
    references = {"random": 0.0, "teacher": 0.1, "oracle": 0.45}
    return [
        CurvePoint(f"2026-11-{5 + hour // 24:02d}T{hour % 24:02d}:00", hour / 60, references) for hour in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 5, 24, 72])
def test_a_learning_curve_of_any_length(count: int) -> None:
    width, height = size(plots.learning_curve(points(count)))
    assert width > height > 300


def test_a_curve_shows_its_references() -> None:
    alone = [CurvePoint(point.window, point.reward, {}) for point in points(24)]
    assert plots.learning_curve(points(24)) != plots.learning_curve(alone)


def test_the_thick_line_is_the_mean_of_the_last_five() -> None:
    import numpy as np

    smooth = plots._trailing_mean(np.array([1.0, 2, 3, 4, 5, 6]))
    assert smooth.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]


@pytest.mark.parametrize("rewards", [[], [0.5], [float("nan")], [0.1, -0.2, float("nan")] * 50])
def test_a_histogram_of_any_rewards(rewards: list[float]) -> None:
    width, height = size(plots.reward_histogram(rewards))
    assert width > height > 200


def test_the_same_numbers_give_the_same_picture() -> None:
    assert plots.learning_curve(points(24)) == plots.learning_curve(points(24))


def test_a_picture_in_markdown_needs_no_server() -> None:
    png = plots.reward_histogram([0.1, 0.2])
    markdown = plots.as_markdown(png, "rewards")
    assert markdown.startswith("![rewards](data:image/png;base64,")
    assert base64.b64decode(markdown.partition("base64,")[2].rstrip(")")) == png
