"""The learning curve: where points lie, what is marked, what is said in words; alone and as a part of a page."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest

from babylon_assets.report.learning_curve import DOTS, CurveMark, CurvePoint, describe, draw_learning_curve
from babylon_assets.report.scales import bounds, differ, ticks, trailing_means
from tests.report.values import HOSTILE

REFERENCES = {"oracle": 0.45, "expert": 0.28, "random": 0.0}
SVG = "{http://www.w3.org/2000/svg}"


def rewards(*values: Any, **changes: Any) -> list[CurvePoint]:
    ids = [f"2026-11-{5 + place // 24:02d}T{place % 24:02d}:00" for place in range(len(values))]
    given = {"references": REFERENCES, **changes}
    return [CurvePoint(window, value, **given) for window, value in zip(ids, values, strict=True)]


def parsed(known: list[CurvePoint], *marks: CurveMark, **options: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw_learning_curve(known, marks, **{"alone": False, **options}))


def points(drawing: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    [line] = drawing.findall(f"polyline[@class='policy {kind}']")
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]


def test_a_higher_reward_lies_higher_and_later_windows_to_the_right() -> None:
    [first, last] = points(parsed(rewards(0.1, None, 0.3)), "thin")
    assert first[0] < last[0]
    assert first[1] > last[1]


def test_the_thick_line_is_the_mean_of_the_last_five() -> None:
    assert trailing_means([0, 10, 20, 30, 40, 50]) == [0, 5, 10, 15, 20, 30]
    drawing = parsed(rewards(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    assert points(drawing, "thick")[0] == points(drawing, "thin")[0]
    assert points(drawing, "thick")[-1][1] > points(drawing, "thin")[-1][1]


@pytest.mark.parametrize(("width", "height"), [(920, 320), (360, 280)])
def test_everything_lies_within_the_drawing(width: int, height: int) -> None:
    drawing = parsed(rewards(*(place / 30 for place in range(30))), width=width, height=height)
    assert drawing.attrib["viewBox"] == f"0 0 {width} {height}"
    for x, y in [*points(drawing, "thin"), *points(drawing, "thick")]:
        assert 0 < x < width - 90
        assert 0 < y < height


def test_decisions_are_marked_at_the_window_of_their_policy() -> None:
    known = rewards(0.1, 0.2, 0.3, 0.4)
    kinds = ("promoted", "rejected", "rolled back", "returned to")
    marks = [CurveMark(point.window, kind, HOSTILE) for point, kind in zip(known, kinds, strict=True)]
    drawing = parsed(known, *marks, CurveMark("2020-01-01T00:00", "promoted"))
    drawn = drawing.findall("path")
    classes = [mark.attrib["class"].removeprefix("mark ") for mark in drawn]
    assert classes == ["promoted", "rejected", "rolled", "returned"]
    assert len(drawing.findall("line[@class='rollback']")) == 1
    assert "<script>" in (drawn[0].findtext("title") or "")
    places = [float(re.findall(r"M([\d.]+),", mark.attrib["d"])[0]) for mark in (drawn[0], drawn[3])]
    assert places == [points(drawing, "thin")[0][0], points(drawing, "thin")[3][0]]


def test_a_reference_is_drawn_window_by_window_and_as_a_mean_where_there_are_many() -> None:
    def drawn(count: int) -> set[float]:
        known = [
            replace(point, references={"oracle": place % 2}) for place, point in enumerate(rewards(*[0.5] * count))
        ]
        line = parsed(known).find("polyline[@class='reference oracle']")
        assert line is not None
        return {float(pair.split(",")[1]) for pair in line.attrib["points"].split()}

    assert len(drawn(48)) == 2 and len(drawn(480)) > 2
    ahead = parsed([CurvePoint("2026-11-05T00:00", 0.5, {"oracle": 0.4}), CurvePoint("2026-11-05T01:00", 0.3, {})])
    assert "oracle 0.4000" in [text.text for text in ahead.iter("text")]


def test_no_label_is_cut_at_an_edge() -> None:
    small = [replace(point, references={"expert": -1.234e-3}) for point in rewards(-1.1e-3, -1.2e-3)]
    drawing = parsed(small)
    for text in drawing.iter("text"):
        room, words = float(text.attrib["x"]), len(text.text or "")
        if text.attrib["class"] == "axis end":
            assert words * 7 < room
        if "label" in text.attrib["class"]:
            assert words * 7.5 < 920 - room


def test_the_curve_says_itself_in_words() -> None:
    known = rewards(0.1, 0.3)
    drawing = parsed(known, CurveMark(known[1].window, "promoted"))
    assert drawing.attrib["role"] == "img"
    named = drawing.attrib["aria-labelledby"].split()
    assert {drawing.find("title").attrib["id"], drawing.find("desc").attrib["id"]} == set(named)  # type: ignore[union-attr]
    words = drawing.findtext("desc") or ""
    assert f"2 windows, from 0.1 in {known[0].window} to 0.3 in {known[1].window}." in words
    assert "expert 0.28" in words
    assert "1 decision marked" in words
    assert describe([], []) == "No window has a reward yet."


def test_nothing_one_point_and_equal_points_are_drawn() -> None:
    assert "no window has a reward yet" in draw_learning_curve([])
    assert len(points(parsed(rewards(0.0, references={})), "thin")) == 1
    assert len({y for _, y in points(parsed(rewards(0.5, 0.5, references={})), "thin")}) == 1


def test_many_points_are_a_line_only() -> None:
    many = [place / 480 for place in range(480)]
    assert len(many) > DOTS
    drawing = parsed(rewards(*many))
    assert drawing.findall("circle") == []
    assert len(points(drawing, "thin")) == len(many)


def test_alone_it_is_a_file_with_a_title_a_legend_and_its_colours() -> None:
    known = rewards(0.1, 0.2)
    drawing = ElementTree.fromstring(draw_learning_curve(known, [CurveMark(known[0].window, "rejected")]))
    assert (drawing.attrib["width"], drawing.attrib["height"]) == ("920", "320")
    words = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"Mean reward per window", "rejected", "oracle 0.4500"} <= set(words)
    assert "--policy:#" in (drawing.findtext(f"{SVG}style") or "")


@pytest.mark.parametrize(
    "values",
    [
        (1e308, -1e308),
        (1e308, 1e308, 1e308, 1e308, 1e308),
        (1.7e308, 1.79e308),
        (0.3, 0.1 + 0.2),
        (1e16, 1e16 + 2),
        (5e-324, 0.0),
        (1e-320, -1e-320),
        (float("nan"), float("inf"), -float("inf"), None, "0.5", 10**400, 0.25),
    ],
)
def test_any_numbers_are_drawn(values: tuple[Any, ...]) -> None:
    drawing = parsed(rewards(*values, references={"oracle": values[0], "expert": None, "random": "?"}))
    places = [place for pair in [*points(drawing, "thin"), *points(drawing, "thick")] for place in pair]
    assert places and all(0 <= place <= 920 for place in places)


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


def test_equal_numbers_get_bounds_that_differ() -> None:
    for values in ([0.0], [0.3, 0.1 + 0.2], [1e308], [-1.79e308], [5e-324], [-7.0, -7.0]):
        assert differ(*bounds(values)), values


def test_a_month_of_hours_is_drawn_so_that_its_parts_can_be_told_apart() -> None:
    hours = [f"2026-11-{day:02d}T{hour:02d}:00" for day in range(1, 31) for hour in range(24)]
    month = [CurvePoint(window, place / 720) for place, window in enumerate(hours)]
    marks = [CurveMark(window, "promoted") for window in hours]
    marks.insert(5, CurveMark(hours[5], "rolled back"))
    for width in (920, 360):
        drawing = draw_learning_curve(month, marks, alone=False, width=width)
        places = [float(x) for x in re.findall(r'd="M([0-9.]+),[0-9.]+ l-5.5,9', drawing)]
        assert len(places) > 10
        assert min(later - earlier for earlier, later in itertools.pairwise(places)) >= 11  # as wide as a mark is
        assert drawing.count('class="mark rolled"') == 1
        assert "<circle" not in drawing
    assert "721 decisions marked" in drawing
    few = month[:60]
    assert draw_learning_curve(few, alone=False).count("<circle") == 60
    assert "<circle" not in draw_learning_curve(few, alone=False, width=360)
    assert "thick: mean of 18 windows" in draw_learning_curve(month)
    assert "thick: mean of five windows" in draw_learning_curve(few)
