"""What is shown of a window: nothing of it can fail the window, and no text of others acts in Markdown."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Any

import dagster as dg
import numpy as np
import pytest

from babylon_assets.domain.trajectories import Quarantined
from babylon_assets.domain.understanding import Understanding
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.metadata import (
    LONGEST_TEXT,
    MOST_CHARACTERS,
    NOT_SHOWN,
    code,
    code_block,
    numbers,
    picture,
    show,
    site_page,
    table,
    tally,
    texts,
)

ATTACKS = (
    "![x](https://evil.example/pixel)",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "`` ` ``` code",
    "a | b |\n| c",
    "# heading\n\n---\n* list",
    "\x1b]0;owned\x07 \u202ereversed \x00 \ud800",
    "`",
    "",
)


def test_a_part_that_cannot_be_made_is_named_and_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dg.MetadataValue[Any]:
        raise ValueError("Too many bins\x1b[2J")

    with caplog.at_level(logging.WARNING):
        counts: dict[str, Any] = {"counts": lambda: numbers({"steps": 3}), "more": lambda: dg.MetadataValue.int(1)}
        shown = show({"rewards": broken, **counts})
    assert set(shown) == {"steps", "more", NOT_SHOWN}
    assert shown[NOT_SHOWN].value == "rewards: ValueError: Too many bins\ufffd[2J"
    assert "rewards cannot be shown" in caplog.text and "Traceback" in caplog.text


def test_what_is_too_large_is_named_with_its_size() -> None:
    shown = show(
        {
            "picture": lambda: picture("x" * MOST_CHARACTERS, "large"),
            "counts": lambda: {"wrong": dg.MetadataValue.json(["y" * MOST_CHARACTERS]), **numbers({"steps": 1})},
        }
    )
    assert set(shown) == {"steps", NOT_SHOWN}
    assert "picture: " in shown[NOT_SHOWN].value and "wrong: " in shown[NOT_SHOWN].value


def test_what_a_person_asks_first_comes_first() -> None:
    shown = show({"counts": lambda: numbers({"steps": 3}), "more": lambda: texts({"reason": "r", "status": "s"})})
    assert list(shown) == ["status", "reason", "steps"]
    counts = {"samples": 4, "groups": 2, "reward_mean": 0.25}
    assert list(show({"counts": lambda: {**numbers(counts), "site_page": site_page("/site/x")}})) == [
        *("site_page", "reward_mean", "samples", "groups")
    ]


def test_an_interruption_is_no_fault_of_a_picture() -> None:
    def interrupted() -> dg.MetadataValue[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show({"rewards": interrupted})


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "text", 10**400, [], np.float64("nan")])
def test_what_is_no_number_is_not_plotted(value: object) -> None:
    assert numbers({"reward": value}) == {}


def test_numbers_are_plain_and_rounded() -> None:
    values = {"a": 0.123456, "b": 7, "c": True, "d": np.int64(3), "e": np.float64(1e308), "f": 123456.0}
    assert {name: value.value for name, value in numbers(values).items()} == {
        **{"a": 0.1235, "b": 7, "c": 1, "d": 3, "e": 1e308},
        "f": 123456.0,
    }
    for value in numbers(values).values():
        json.dumps(value.value, allow_nan=False)


def test_numbers_of_a_table_have_the_same_digits() -> None:
    shown = table([{"reward": 0.475, "samples": 3}, {"reward": None, "samples": 12_000}])
    assert isinstance(shown, dg.TableMetadataValue)
    assert [record.data for record in shown.records] == [
        {"reward": "0.4750", "samples": 3},
        {"reward": "-", "samples": 12_000},
    ]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_is_markdown(attack: str) -> None:
    span, block = code(attack), code_block(attack)
    fence = re.match("`+", span)
    assert fence is not None and span.endswith(fence[0]) and "\n" not in span
    inside = span[len(fence[0]) : -len(fence[0])]
    assert len(fence[0]) not in map(len, re.findall("`+", inside))
    assert "|" not in inside.replace("\\|", "")
    first, *lines, last = block.split("\n")
    assert set(last) == {"`"} and first == f"{last}text"
    assert all(len(run) < len(last) for line in lines for run in re.findall("`+", line))
    for shown in (span, block, texts({"x": attack or "-"})["x"].value):
        assert not set(shown) & set("\x1b\x07\u202e\x00\ud800")


def test_texts_and_counts_are_bounded_and_harmless() -> None:
    text = texts({"reason": "r" * 10_000})["reason"].value
    assert len(text) < LONGEST_TEXT + 30 and "10,000 characters" in text
    assert tally({"\x1b]0;x\x07": 3}).value == {"\ufffd]0;x\ufffd": 3}


def test_checks_show_no_markup_of_agents() -> None:
    for attack in ATTACKS[:-1]:
        rows = [Quarantined("w", "t", attack, attack, "hash")]
        result = checks.little_in_quarantine("w", 1, rows)
        assert "\x1b" not in str(result.metadata["reasons"].value)
        unknown = Understanding(4, 1, 0, 0, 0, 0, 0, words={attack: 3})
        assert checks.understood(unknown, 0.5).description == code(unknown.fault(0.5) or "")
        wrong = checks._check_result(checks.STABLE, [attack, attack], "")
        assert wrong.description == f"{code(attack)} and 1 more"
