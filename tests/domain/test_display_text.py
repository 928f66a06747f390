"""Texts of others are harmless in whatever medium; numbers are rounded for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.domain.display_text import (
    as_number,
    format_number,
    format_scorers,
    neutralize,
    neutralize_line,
    round_number,
    shorten,
)

TERMINAL = ("\x1b]0;owned\x07", "\x9b31m", "\x1b[2J", "\r", "\x00")
WRITING = ("\u202egnp", "\u2066x", "\u061c", "\ud800", "\ufeff", "\u2028")

UNSEEN = ("\xad", "\u200b", "\u2060", "\u3164", "\U000e0041")


@pytest.mark.parametrize("attack", [*TERMINAL, *WRITING, *UNSEEN])
def test_what_acts_is_replaced(attack: str) -> None:
    text = neutralize(f"before {attack} after")
    assert attack[0] not in text and "\N{REPLACEMENT CHARACTER}" in text
    assert text.startswith("before ") and text.endswith(" after")


def test_what_people_write_stays() -> None:
    text = "two\nlines\tand “ünïcode” 📈 👩\u200d🚀 עברית العربية"
    assert neutralize(text) == text
    assert neutralize_line(text).count("\n") == 0


@given(st.text(alphabet=st.characters()))
def test_any_text_can_be_written(text: str) -> None:
    written = neutralize(text).encode("utf-8")
    assert written.decode("utf-8") == neutralize(text)
    assert b"\x1b" not in written


def test_a_long_text_says_how_long_it_was() -> None:
    assert shorten("x" * 9, 9) == "x" * 9
    assert shorten("x" * 1234, 2) == "xx… (1,234 characters)"


@pytest.mark.parametrize("value", [None, "one", math.nan, math.inf, -math.inf, 10**400, [], object()])
def test_what_is_no_number_is_none(value: object) -> None:
    assert math.isnan(as_number(value))


@pytest.mark.parametrize(
    ("value", "rounded", "text"),
    [
        (0.123456, 0.1235, "0.1235"),
        (0.5, 0.5, "0.5"),
        (-0.0, -0.0, "0"),
        (12345.0, 12345.0, "12,345"),
        (12345.6, 12350.0, "12,346"),
        (0.0000123456, 0.00001235, "0.00001235"),
        (-0.000012, -0.000012, "-0.000012"),
        (0.00009999999, 0.0001, "0.0001"),
        (1.23456e-7, 1.235e-7, "1.235e-07"),
        (-1e308, -1e308, "-1e+308"),
        (math.inf, math.inf, "inf"),
    ],
)
def test_numbers_are_rounded_for_people(value: float, rounded: float, text: str) -> None:
    assert round_number(value) == rounded
    assert format_number(value) == text


def test_in_a_column_small_numbers_have_the_same_digits() -> None:
    numbers = (0.00005, 0.0005, 1.0, 74.6)
    assert [format_number(number, padded=True) for number in numbers] == ["0.00005000", "0.0005000", "1.000", "74.60"]


def test_scorers_are_named_with_their_versions_and_without_the_reward() -> None:
    assert format_scorers(["heuristic@1", "outcome@imported", "reward@heuristic@1,outcome@1"]) == (
        "heuristic v1, outcome imported"
    )
