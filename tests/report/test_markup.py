"""What texts become on a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.report.markup import LONGEST, Html, element, join, text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("a\u202eb\x00c\ud800d", "a\ufffdb\ufffdc\ufffdd"),
        ("two\nlines\tand “ünïcode” 📈", "two\nlines\tand “ünïcode” 📈"),
        (12, "12"),
        (None, ""),
    ],
)
def test_a_text_is_escaped_and_made_harmless(given: object, shown: str) -> None:
    assert text(given) == shown


def test_a_long_text_is_cut_and_says_how_long_it_was() -> None:
    shown = text("x" * 5000)
    assert shown == "x" * LONGEST + "… (5,000 characters)"


def test_elements_escape_texts_and_attributes_and_keep_markup() -> None:
    made = element("td", "<i>", element("b", "&"), class_="number", data_label='"x"', hidden=None, open=False)
    assert made == '<td class="number" data-label="&quot;x&quot;">&lt;i&gt;<b>&amp;</b></td>'
    assert element("br") == "<br>"
    assert join(["<", Html("<br>")]) == "&lt;<br>"


@given(st.text(alphabet=st.characters()))
def test_no_text_makes_markup_or_breaks_the_file(anything: str) -> None:
    shown = text(anything)
    shown.encode("utf-8")
    assert not set(shown) & set("<>\"'")
