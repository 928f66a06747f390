"""JSON that is nested deeply: what is too deep is dropped, whoever called, and all else stays."""

from __future__ import annotations

import json

import msgspec
import pytest

from babylon_assets.domain.chat_turns import chat_turns
from babylon_assets.domain.json_nesting import CUT_LEVELS, MOST_LEVELS, cut_nesting, decode_shallow, is_too_deep
from babylon_assets.domain.trajectories import Message, ToolCall


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("levels", [1, CUT_LEVELS - 1, CUT_LEVELS, 5_000, 100_000])
def test_only_what_is_too_deep_is_cut(levels: int) -> None:
    text = f'{{"text": "[[\\"{{", "deep": {nested(levels)}, "after": [{{"a": "]"}}]}}'.encode()
    cut, count = cut_nesting(text)
    value = json.loads(cut)
    assert (value["text"], value["after"]) == ('[["{', [{"a": "]"}])
    assert count == (levels >= CUT_LEVELS)
    assert is_too_deep(value["deep"]) == (levels > MOST_LEVELS)


def test_a_hostile_text_is_cut_in_one_pass() -> None:
    """It would take minutes where a part is looked at twice."""
    for brackets in (b"[" * 10**5, b'{"a":' * 10**5):
        cut, count = cut_nesting(brackets)
        assert (brackets.startswith(cut), len(cut) <= 5 * CUT_LEVELS, count) == (True, True, 1)
    for quoted in (b'"' + b'\\"' * 10**5, b'"\\"' * 10**5):
        assert cut_nesting(quoted) == (quoted, 0)


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 900, 980, 100_000])
def test_what_is_decoded_does_not_depend_on_who_calls(levels: int) -> None:
    def call_deeply(depth: int) -> object:
        return call_deeply(depth - 1) if depth else chat_turns([called])[0]["tool_calls"][0]["function"]["arguments"]

    text = f'{{"a": {nested(levels)}}}'
    called = Message("assistant", "", (ToolCall("c", "f", text),))
    assert call_deeply(0) == call_deeply(200) == text
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        decode_shallow(text)
