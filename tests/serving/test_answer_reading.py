"""Thoughts and tool calls taken out of an answer's text, whole and in pieces of any size."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.serving.answer_reading import AnswerParser
from babylon_assets.serving.tool_call_texts import Parameters

HERMES = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
LLAMA = '{"name": "look", "parameters": {"at": 1}}'
CALL = ("look", {"at": 1})
AT = {"look": {"properties": {"at": {"type": "integer"}}}}
#: What a value in XML may be, by the schema of the tool.
FIELDS: dict[str, Any] = {
    **{"text": {"type": "string"}, "number": {"type": "number"}, "flag": {"type": "boolean"}},
    **{"list": {"type": "array"}, "object": {"$ref": "#/$defs/order"}, "odd": "no schema", "any": {}},
    **{"maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "few": {"enum": [1, 2]}},
}
ORDER = {"order": {"properties": FIELDS, "$defs": {"order": {"type": "object", "anyOf": [{"$ref": "#/$defs/order"}]}}}}


def xml(name: str, *arguments: tuple[str, str]) -> str:
    """A call as Qwen3-Coder writes it."""
    values = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments)
    return f"<tool_call>\n<function={name}>\n{values}</function>\n</tool_call>"


XML = xml("look", ("at", "1"))
CASES: dict[str, tuple[str, Parameters | None, Any]] = {
    "plain": ("Hello there.\n", None, ("Hello there.\n", "", [])),
    "plain with tools": ("Hello <b> there.", AT, ("Hello <b> there.", "", [])),
    "thought": ("<think>\nHm.\n</think>\n\nYes", None, ("Yes", "Hm.", [])),
    "unfinished thought": ("<think>\nHm", None, ("", "Hm", [])),
    "empty thought": ("<think>\n\n</think>\n\nYes", None, ("Yes", "", [])),
    "hermes": (HERMES, AT, ("", "", [CALL])),
    "two": (f"I look.\n{HERMES}\n{HERMES}", AT, ("I look.", "", [CALL, CALL])),
    "thought and call": (f"<think>Hm.</think>\n{HERMES}", AT, ("", "Hm.", [CALL])),
    "llama": (LLAMA, AT, ("", "", [CALL])),
    "llama tagged": (f"<|python_tag|>{LLAMA}", AT, ("", "", [CALL])),
    "llama list": (f"[{LLAMA}, {LLAMA}]", AT, ("", "", [CALL, CALL])),
    "json that is no call": ('{"action": "hold"}', AT, ('{"action": "hold"}', "", [])),
    "nobody's tool": (HERMES, {"other": {}}, (HERMES, "", [])),
    "broken": ("<tool_call>{", AT, ("<tool_call>{", "", [])),
    "call without tools": (HERMES, None, (HERMES, "", [])),
    "xml": (XML, AT, ("", "", [CALL])),
    "xml twice": (f"<think>Hm.</think>I look.\n{XML}\n{XML}", AT, ("I look.", "Hm.", [CALL, CALL])),
    "xml in one line": (XML.replace("\n", ""), AT, ("", "", [CALL])),
    "xml without arguments": (xml("look"), AT, ("", "", [("look", {})])),
    "xml of nobody's tool": (xml("buy"), AT, (xml("buy"), "", [])),
    "unfinished xml": (XML[:-40], AT, (XML[:-40], "", [])),
    "xml with more in it": (XML.replace("</f", "so</f"), AT, (XML.replace("</f", "so</f"), "", [])),
    "broken xml before another": (
        *(f"<tool_call><function=look></tool_call> No.\n{XML}", AT),
        ("<tool_call><function=look></tool_call> No.", "", [CALL]),
    ),
    "marks in a value": (
        *(xml("order", ("text", "a < b\n</tool_call>\n\n<parameter>")), ORDER),
        ("", "", [("order", {"text": "a < b\n</tool_call>\n\n<parameter>"})]),
    ),
    "texts in xml": (
        *(xml("order", ("text", "12"), ("maybe", "null"), ("any", "true"), ("odd", "{}"), ("other", "1")), ORDER),
        ("", "", [("order", {"text": "12", "maybe": None, "any": "true", "odd": "{}", "other": "1"})]),
    ),
    "json in xml": (
        *(xml("order", ("number", "-2.5"), ("flag", "True"), ("list", '[1, "a"]'), ("object", '{"a": {}}')), ORDER),
        ("", "", [("order", {"number": -2.5, "flag": True, "list": [1, "a"], "object": {"a": {}}})]),
    ),
    "no json in xml": (
        *(xml("order", ("number", "many"), ("list", "[" * 2000), ("few", "2")), ORDER),
        ("", "", [("order", {"number": "many", "list": "[" * 2000, "few": 2})]),
    ),
    "json that is too deep": ("[" * 2000, AT, ("[" * 2000, "", [])),
    "text after a call": (f"{HERMES} done", AT, ("done", "", [CALL])),
}


def read(pieces: list[str], tools: Parameters | None, **more: bool) -> tuple[str, str, list[tuple[str, object]]]:
    reader = AnswerParser(tools, **more)
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
    text, tools, expected = CASES[case]
    assert read([text], tools) == expected


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 120), max_size=8))
def test_it_is_the_same_in_pieces(case: str, cuts: list[int]) -> None:
    text, tools, expected = CASES[case]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert read(pieces, tools) == expected


def test_a_thought_begins_after_its_lines_end_however_it_comes() -> None:
    assert read(["<think>", "\n", "\nHm"], None) == ("", "Hm", [])


def test_a_thought_that_the_template_opened_ends_where_it_ends() -> None:
    assert read(["Hm.</think>", " Yes"], None, in_thought=True) == ("Yes", "Hm.", [])
    raw = "<think>Hm.</think>Yes"
    assert read([raw], None, parses_thoughts=False) == (raw, "", [])
    reader = AnswerParser(None, in_thought=True)
    assert (reader.feed("Hm. ").reasoning, reader.feed("So").reasoning) == ("Hm.", " So")
