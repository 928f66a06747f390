"""The drawings: where points lie, what is marked, what is said in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from babylon_assets.report.chart import DOTS, describe, learning_curve, shares, ticks, trailing_means
from tests.report.values import HOSTILE, promotion, window

WINDOWS = [window(3, reward=0.1), window(2, reward=None), window(1, reward=0.3)]


def parsed(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def points(drawing: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    [line] = drawing.findall(f"polyline[@class='policy {kind}']")
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]


def test_a_higher_reward_lies_higher_and_later_windows_to_the_right() -> None:
    [first, last] = points(parsed(learning_curve(WINDOWS, [], name="c")), "thin")
    assert first[0] < last[0]
    assert first[1] > last[1]


def test_the_thick_line_is_the_mean_of_the_last_five() -> None:
    assert trailing_means([0, 10, 20, 30, 40, 50]) == [0, 5, 10, 15, 20, 30]
    drawing = parsed(learning_curve([window(back, reward=back / 10) for back in range(6, 0, -1)], [], name="c"))
    assert points(drawing, "thick")[0] == points(drawing, "thin")[0]
    assert points(drawing, "thick")[-1][1] < points(drawing, "thin")[-1][1]


def test_everything_lies_within_the_drawing() -> None:
    for width, height in ((920, 320), (360, 280)):
        drawing = parsed(
            learning_curve([window(back) for back in range(30, 0, -1)], [promotion(2)], name="c", width=width)
        )
        assert drawing.attrib["viewBox"].startswith(f"0 0 {width} ")
        for x, y in [*points(drawing, "thin"), *points(drawing, "thick")]:
            assert 0 < x < width - 90
            assert 0 < y < height


def test_promotions_and_rollbacks_are_marked_at_the_window_of_their_policy() -> None:
    made = [promotion(1, kind="rollback", why=HOSTILE), promotion(3), promotion(30)]
    drawing = parsed(learning_curve(WINDOWS, made, name="c"))
    marks = drawing.findall("path")
    assert [mark.attrib["class"] for mark in marks] == ["mark forth", "mark back"]
    assert len(drawing.findall("line[@class='rollback']")) == 1
    assert "rollback to babylon-agent@39" in (marks[1].findtext("title") or "")
    [start] = re.findall(r"M([\d.]+),", marks[1].attrib["d"])
    assert float(start) == points(drawing, "thin")[-1][0]


def test_the_curve_says_itself_in_words() -> None:
    drawing = parsed(learning_curve(WINDOWS, [promotion(1)], name="c"))
    assert drawing.attrib["role"] == "img"
    named = drawing.attrib["aria-labelledby"].split()
    assert {drawing.find("title").attrib["id"], drawing.find("desc").attrib["id"]} == set(named)  # type: ignore[union-attr]
    told = drawing.findtext("desc") or ""
    assert f"2 windows, from 0.100 in {WINDOWS[0].id} to 0.300 in {WINDOWS[2].id}." in told
    assert "expert 0.280" in told
    assert "1 promotions and rollbacks" in told
    assert describe([], []) == "No window has a reward yet."


def test_nothing_one_point_and_equal_points_are_drawn() -> None:
    assert "no window has a reward yet" in learning_curve([], [], name="c")
    assert len(points(parsed(learning_curve([window(1, reward=0.0, references=None)], [], name="c")), "thin")) == 1
    flat = [window(back, reward=0.5, references=None) for back in (2, 1)]
    assert len({y for _, y in points(parsed(learning_curve(flat, [], name="c")), "thin")}) == 1


def test_many_points_are_a_line_only() -> None:
    many = [window(1, id=f"2026-11-{day:02d}T{hour:02d}:00") for day in range(1, 21) for hour in range(24)]
    assert len(many) > DOTS
    drawing = parsed(learning_curve(many, [], name="c"))
    assert drawing.findall("circle") == []
    assert len(points(drawing, "thin")) == len(many)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.12, 0.31, [-0.1, 0, 0.1, 0.2, 0.3]),
        (20, 70, [20, 30, 40, 50, 60, 70]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_bar_is_divided_as_the_counts_are() -> None:
    drawing = parsed(shares([("trained", 3, "good"), ("failed", 1, "poor")], name="b", title="by state", width=100))
    assert [part.attrib["width"] for part in drawing.findall("rect")] == ["75.0", "25.0"]
    assert drawing.findtext("desc") == "trained 3, failed 1"
