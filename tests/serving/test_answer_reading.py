"""Thoughts and tool calls taken out of an answer's text, whole and in pieces of any size."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.serving.answer_reading import AnswerParser

HERMES = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
LLAMA = '{"name": "look", "parameters": {"at": 1}}'
CALL = ("look", {"at": 1})
CASES = {
    "plain": ("Hello there.\n", None, ("Hello there.\n", "", [])),
    "plain with tools": ("Hello <b> there.", ["look"], ("Hello <b> there.", "", [])),
    "thought": ("<think>\nHm.\n</think>\n\nYes", None, ("Yes", "Hm.", [])),
    "unfinished thought": ("<think>\nHm", None, ("", "Hm", [])),
    "empty thought": ("<think>\n\n</think>\n\nYes", None, ("Yes", "", [])),
    "hermes": (HERMES, ["look"], ("", "", [CALL])),
    "two": (f"I look.\n{HERMES}\n{HERMES}", ["look"], ("I look.", "", [CALL, CALL])),
    "thought and call": (f"<think>Hm.</think>\n{HERMES}", ["look"], ("", "Hm.", [CALL])),
    "llama": (LLAMA, ["look"], ("", "", [CALL])),
    "llama tagged": (f"<|python_tag|>{LLAMA}", ["look"], ("", "", [CALL])),
    "llama list": (f"[{LLAMA}, {LLAMA}]", ["look"], ("", "", [CALL, CALL])),
    "json that is no call": ('{"action": "hold"}', ["look"], ('{"action": "hold"}', "", [])),
    "nobody's tool": (HERMES, ["other"], (HERMES, "", [])),
    "broken": ("<tool_call>{", ["look"], ("<tool_call>{", "", [])),
    "call without tools": (HERMES, None, (HERMES, "", [])),
    "text after a call": (f"{HERMES} done", ["look"], ("done", "", [CALL])),
}


def read(pieces: list[str], names: list[str] | None, **more: bool) -> tuple[str, str, list[tuple[str, object]]]:
    reader = AnswerParser(names, **more)
    readings = [*map(reader.feed, pieces), reader.finish()]
    calls = [call for reading in readings for call in reading.tool_calls]
    assert all(call.id.startswith("call_") for call in calls)
    content, thought = (
        "".join(reading.content for reading in readings),
        "".join(reading.reasoning for reading in readings),
    )
    return content, thought, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_taken_apart(case: str) -> None:
    text, names, expected = CASES[case]
    assert read([text], names) == expected


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 120), max_size=8))
def test_it_is_the_same_in_pieces(case: str, cuts: list[int]) -> None:
    text, names, expected = CASES[case]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert read(pieces, names) == expected


def test_a_thought_that_the_template_opened_ends_where_it_ends() -> None:
    assert read(["Hm.</think>", " Yes"], None, in_thought=True) == ("Yes", "Hm.", [])
    raw = "<think>Hm.</think>Yes"
    assert read([raw], None, parses_thoughts=False) == (raw, "", [])
    reader = AnswerParser(None, in_thought=True)
    assert (reader.feed("Hm. ").reasoning, reader.feed("So").reasoning) == ("Hm.", " So")
