"""What values become in a template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from babylon_assets.report import rendering
from babylon_assets.report.rendering import LONGEST, MISSING, format_money, format_seconds, format_value


def shown(value: Any) -> str:
    return rendering._environment().from_string("{{ value }}").render(value=value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
        ("a\u202eb\x00c\ud800d\x1b]0;x\x07", "a\ufffdb\ufffdc\ufffdd\ufffd]0;x\ufffd"),
        ("two\nlines\tand “ünïcode” 📈", "two\nlines\tand “ünïcode” 📈"),
        (12, "12"),
        (None, ""),
        (Markup("<br>"), "<br>"),
    ],
)
def test_a_value_is_escaped_and_harmless(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert shown("x" * 5000) == "x" * LONGEST + "… (5,000 characters)"


@given(st.text(alphabet=st.characters()))
def test_no_text_makes_markup_or_breaks_the_file(anything: str) -> None:
    text = shown(anything)
    text.encode("utf-8")
    assert not set(text) & set("<>\"'\x1b")


def test_numbers_and_times_are_rounded_for_people() -> None:
    assert [format_value(value) for value in (0.481234, 0.5, 12345.6, None)] == ["0.4812", "0.5000", "12,346", MISSING]
    assert [format_money(value) for value in (0.0, 0.0021, 1234.5)] == ["$0.00", "$0.0021", "$1,234.50"]
    assert [format_seconds(value) for value in (61.25, 5231.4)] == ["61.2 s", "1:27:11"]
