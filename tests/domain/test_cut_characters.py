"""Half a character in JSON: replaced and counted, and nothing else is touched."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.json_nesting import decode_cut


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        (rb'"up \ud83d"', "up \ufffd", 1),
        (rb'"\ude80 \ud83d\ud83d\ude80"', "\ufffd \ufffd\U0001f680", 2),
        (rb'"\\ud83d \\\ud83d"', "\\ud83d \\\ufffd", 1),
        ('"up 🚀"'.encode()[:-2] + b'"', "up \ufffd", 1),
        ('"\ufffd up 🚀"'.encode(), "\ufffd up 🚀", 0),
    ],
)
def test_half_a_character_is_replaced(text: bytes, expected: str, count: int) -> None:
    repaired, halves = replace_halves(text)
    assert (json.loads(repaired), halves) == (expected, count)


def test_a_document_is_read_with_what_was_cut_in_it_replaced() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    read = decode_cut(msgspec.json.decode, rb'{"cut": "up \ud83d", "deep": ' + deep + b"}")
    assert read["cut"] == "up \ufffd"
    with pytest.raises(msgspec.DecodeError):
        decode_cut(msgspec.json.decode, b'{"cut')


@given(st.text())
def test_whole_texts_stay_as_they_are(text: str) -> None:
    for ascii_only in (True, False):
        encoded = json.dumps(text, ensure_ascii=ascii_only).encode()
        assert replace_halves(encoded) == (encoded, 0)
