"""Files become trajectories: those of our own exports exactly, those of others as far as they say what is needed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.domain.chat_turns import wire_messages
from babylon_assets.domain.datasets import build_dataset
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.imported_rewards import with_imported
from babylon_assets.domain.trajectories import Message, Quarantined, ToolCall
from babylon_assets.environments.babylon.details import make_step, steps_frame
from babylon_assets.environments.files.exports import art_lines, table_rows
from babylon_assets.environments.files.imports import Entry, arranged, art_entries, table_entries
from tests.domain.rows import call, record, step
from tests.ledger.values import LATER, WINDOW, dataset, sample

FACTS = make_step(0, 5_000, 4_000, 1.5, None, "HOLD", None, None, None, None, None, True, None, False)
OWN = dataset(
    sample(0, group="g1", advantage=-0.1),
    sample(1, group="g1", response="buy “yes”\u2028", reward=1 / 3),
    sample(2, group="g2", trains_as="skip", skip_reason="outcome cannot be known", reward=None, advantage=None),
    sample(3, group="g3", token_ids=None, logprobs=None, prompt_token_ids=None, policy=None, trains_as="sft"),
)
SAID = [each.trajectory_id for each in OWN.samples]
BY_STEP = {(name, 0): FACTS for name in SAID}


def line(*members: dict[str, Any]) -> bytes:
    return json.dumps({"trajectories": list(members)}).encode()


def member(**changes: Any) -> dict[str, Any]:
    """A trajectory as ART writes it, which says nothing of a game."""
    turns = [
        {"role": "user", "content": "2 + 2?"},
        {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "4"}},
    ]
    return {"messages_and_choices": turns, "reward": 1.0, "metrics": {"right": True}, "metadata": {}} | changes


def entries(*lines: bytes, window: str | None = WINDOW) -> list[Entry]:
    found = list(art_entries(lines, window))
    assert all(isinstance(each, Entry) for each in found), found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("form", ["jsonl", "table"])
def test_an_import_trains_on_what_the_exported_dataset_trained_on(form: str) -> None:
    """Also where the better half of a group is imitated, and of a step's answers one was refused."""
    records = [
        record(
            [step(0, llmCalls=[call(model="gpt", response=f"no {n}"), call(model="gpt", response=f"yes {n}")])],
            trajectory_id=f"t{n}",
            agent_id=f"a{n}",
        )
        for n in range(9)
    ]
    facts = {(each.trajectory_id, fact.step): fact for each in records for fact in each.facts}
    refused = {(each.trajectory_id, raw.step, raw.call) for each in records for raw in each.samples if raw.refused}
    rewards = pd.DataFrame(
        {
            "trajectory_id": [f"t{n}" for n in range(9)],
            "step": 0,
            "state": "final",
            "reward": [n / 9 for n in range(9)],
            "outcome": [n / 9 for n in range(9)],
        }
    )
    weights = {"outcome": 1.0}
    exported = build_dataset(WINDOW, records, {}, rewards, "babylon-agent", weights=weights)
    trained = [each for each in exported.samples if each.trains_as != "skip"]
    assert len(trained) > 3 and refused
    if form == "jsonl":
        read = art_entries(art_lines(exported, facts, refused), None)
    else:
        read = table_entries(table_rows(exported, facts, refused), None)
    found, bad = arranged(read, None, 30)
    assert bad == []
    known = {kept.trajectory_id: given for kept, given in found[WINDOW].records}
    back = [kept for kept, _ in found[WINDOW].records]
    scores = with_imported(pd.DataFrame(), steps_frame(back), known)
    again = build_dataset(WINDOW, back, {}, scores, "babylon-agent", weights=weights)
    assert [each for each in again.samples if each.trains_as != "skip"] == trained
    assert again.id == exported.id


@pytest.mark.parametrize("form", ["jsonl", "table"])
def test_what_was_exported_comes_back(form: str) -> None:
    read = art_entries(art_lines(OWN, BY_STEP), None)
    if form == "table":
        read = table_entries(table_rows(OWN, BY_STEP), None)
    found, refused = arranged(read, None, 30)
    assert (list(found), refused) == ([WINDOW], [])
    wanted = [each for each in OWN.samples if form == "table" or each.trains_as != "skip"]
    records = {record.trajectory_id: (record, rewards) for record, rewards in found[WINDOW].records}
    calls = {each.record.trajectory_id: each for each in found[WINDOW].calls}
    assert set(records) == {each.trajectory_id for each in wanted}
    for each in wanted:
        record, rewards = records[each.trajectory_id]
        [raw], [told] = record.samples, rewards.steps
        assert (record.agent_id, record.facts, raw.step, raw.call) == (each.agent_id, [FACTS], each.step, each.call)
        assert (list(raw.messages), raw.response, raw.model) == (each.messages, each.response, each.model)
        assert (told.reward, told.components) == (each.reward, each.components)
        assert told.state == ("final" if each.reward is not None else "unknown")
        assert (raw.call_id in rewards.call_ids) == (each.token_ids is not None)
        if each.token_ids is not None:
            entry = calls[each.trajectory_id].entry
            assert (entry.prompt_token_ids, entry.token_ids, entry.logprobs) == (
                each.prompt_token_ids,
                each.token_ids,
                each.logprobs,
            )


def test_the_same_file_gives_the_same_ids_and_another_reward_another_hash() -> None:
    def hashes(lines: list[bytes]) -> list[str]:
        found, _ = arranged(art_entries(lines, None), None, 30)
        return [record.content_hash for record, _ in found[WINDOW].records]

    lines = list(art_lines(OWN, BY_STEP))
    assert hashes(lines) == hashes(lines[::-1]) == hashes(lines + lines)
    assert hashes(lines) != hashes([each.replace(b'"reward":0.0', b'"reward":0.5') for each in lines])


def test_arts_own_files_are_read_by_group_and_content() -> None:
    first, second = entries(line(member(), member(reward=0.0)), line(member()))[:2]
    assert first.trajectory_id == first.agent_id
    assert first.trajectory_id.startswith("import-")
    assert first.trajectory_id != second.trajectory_id
    assert (first.response, first.reward, first.step) == ("4", 1.0, 0)
    found, _ = arranged([first, second, *entries(line(), line(member(reward=0.5)))], WINDOW, 30)
    moments = [record.facts[0].moment_ms for record, _ in found[WINDOW].records]
    assert len(moments) == 3
    assert max(moments) - min(moments) == 30_000


def test_every_answer_of_a_conversation_is_a_sample_of_its_own() -> None:
    choice = member()["messages_and_choices"][1]
    turns = [{"role": "user", "content": "1"}, choice, {"role": "user", "content": "2"}, choice]
    first, second = entries(line(member(messages_and_choices=turns)))
    assert (first.step, len(first.messages), second.step, len(second.messages)) == (0, 1, 1, 3)
    assert first.trajectory_id == second.trajectory_id


def test_an_answer_that_is_a_plain_message_is_read_as_text() -> None:
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    [entry] = entries(line(member(messages_and_choices=turns)))
    assert (entry.response, entry.token_ids) == ("4", None)


def choice_with(*tokens: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "4"}, "logprobs": {"content": list(tokens)}}
    return member(messages_and_choices=[{"role": "user", "content": "?"}, choice])


BAD = [
    (b"{", "line 1", "not JSON"),
    (b"[1]", "line 1", "no trajectory group: it is no object"),
    (b'{"step": 1}', "line 1", 'no trajectory group: it has no field "trajectories"'),
    (b'{"trajectories": 3}', "line 1", 'no trajectory group: its field "trajectories" is no list'),
    (line({"reward": 1}), "line 1 trajectory 0", "without messages_and_choices"),
    (line(member(messages_and_choices=[])), "line 1 trajectory 0", "without an answer"),
    (line(member(messages_and_choices=[3])), "line 1 trajectory 0", "a message that is no object"),
    (
        line(member(messages_and_choices=member()["messages_and_choices"][1:])),
        "line 1 trajectory 0",
        "without a prompt",
    ),
    (line(member(reward="high")), "line 1 trajectory 0", "no number"),
    (line(member(reward=float("nan"))), "line 1 trajectory 0", "no number"),
    (line(member(metadata={"step": -1})), "line 1 trajectory 0", "no step or call"),
    (line(member(metadata={"step": 10**400})), "line 1 trajectory 0", "no step or call"),
    (line(member(metadata={"call": [1]})), "line 1 trajectory 0", "no step or call"),
    (line(member(metadata={"prompt_token_ids": 7})), "line 1 trajectory 0", "token ids that are no list"),
    (line(member(metadata={"facts": "{"})), "line 1 trajectory 0", "not JSON"),
    (line(member(metadata={"facts": "{}"})), "line 1 trajectory 0", "facts that cannot be read: Expected `int`, got"),
    (line(choice_with({"token": "token_id:5"})), "line 1 trajectory 0", "no number"),
    (line(choice_with({"token": "token_id:-5", "logprob": 0})), "line 1 trajectory 0", "a token id that is none"),
    (line(choice_with({"token": "token_id:x", "logprob": 0})), "line 1 trajectory 0", "a token id that is none"),
    (b'{"trajectories":' * 5000, "line 1", ""),
]


@pytest.mark.parametrize(("content", "place", "reason"), BAD)
def test_what_cannot_be_read_is_refused_with_reason_and_place(content: bytes, place: str, reason: str) -> None:
    found, [bad] = arranged(art_entries([content, line(member())], WINDOW), WINDOW, 30)
    assert (bad.window, bad.place) == (WINDOW, place)
    assert reason in bad.reason
    assert len(found[WINDOW].records) == 1


def test_one_bad_value_costs_what_it_is_the_value_of() -> None:
    """A line is a group of many; neither a number that is none nor half a character in one of them is of the others."""
    cut = member(messages_and_choices=[{"role": "user", "content": "up \ud83d"}, member()["messages_and_choices"][1]])
    bad_component = member(metrics={"right": float("inf"), "short": 1.0})
    content = line(member(), member(reward=float("nan")), cut, bad_component)
    found, refused = arranged(art_entries([content], WINDOW), WINDOW, 30)
    samples = [raw.messages[0].content for record, _ in found[WINDOW].records for raw in record.samples]
    assert sorted(samples) == ["2 + 2?", "2 + 2?", "up \ufffd"]
    assert [(bad.place, bad.reason) for bad in refused] == [
        ("line 1", "characters that were cut and are replaced"),
        ("line 1 trajectory 1", "a reward, component or log-probability that is no number"),
        ("line 1 trajectory 3", "a component that is no number: right"),
    ]
    components = [step.components for _, given in found[WINDOW].records for step in given.steps]
    assert {"short": 1.0} in components


def test_a_bad_answer_costs_no_other_of_its_conversation() -> None:
    ask, choice = member()["messages_and_choices"]
    bad = {**choice, "logprobs": {"content": [{"token": "token_id:5", "logprob": None}]}}
    first, refused, third = art_entries(
        [line(member(messages_and_choices=[ask, choice, ask, bad, ask, choice]))], WINDOW
    )
    assert isinstance(first, Entry) and isinstance(refused, Quarantined) and isinstance(third, Entry)
    assert [(entry.step, len(entry.messages)) for entry in (first, third)] == [(0, 1), (2, 5)]
    first, refused = art_entries([line(member(messages_and_choices=[ask, choice, 3, ask, choice]))], WINDOW)
    assert isinstance(first, Entry) and (first.step, refused.place) == (0, "line 1 trajectory 0")


BUY = ToolCall("c1", "buy", "{}")
OFFERED = '[{"function":{"name":"buy"},"type":"function"}]'
TOOLS: dict[str, Any] = {
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "buy", "arguments": "{}"}}]
}


@pytest.mark.parametrize("form", ["art", "table"])
def test_a_conversation_with_tools_keeps_all_of_it(form: str) -> None:
    ask: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, **TOOLS},
        {"role": "tool", "content": "bought", "tool_call_id": "c1"},
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": None, **TOOLS}
    offered = json.loads(OFFERED)
    if form == "art":
        read = art_entries([line(member(messages_and_choices=[*ask, answer], tools=offered))], WINDOW)
    else:
        row = {"messages": json.dumps(ask), "response": "", "tool_calls": json.dumps(TOOLS["tool_calls"])}
        read = table_entries([{**row, "tools": json.dumps(offered)}], WINDOW)
    found, bad = arranged(read, WINDOW, 30)
    [[sample]] = [record.samples for record, _ in found[WINDOW].records]
    assert bad == []
    assert (sample.response, sample.tool_calls, sample.tools) == ("", (BUY,), OFFERED)
    assert sample.messages == [
        Message("user", "?"),
        Message("assistant", "", (BUY,)),
        Message("tool", "bought", tool_call_id="c1"),
    ]


def test_a_tool_call_without_a_name_costs_its_conversation() -> None:
    ask = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}]
    turns = [*ask, {"role": "assistant", "content": "done"}]
    found, [bad] = arranged(art_entries([line(member(messages_and_choices=turns), member())], WINDOW), WINDOW, 30)
    assert bad.reason == "a tool call that cannot be read"
    assert [raw.response for record, _ in found[WINDOW].records for raw in record.samples] == ["4"]


def test_content_in_parts_is_read_and_kept_where_a_part_is_no_text() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    turns = [{"role": "user", "content": parts}, *member()["messages_and_choices"][1:]]
    [entry] = entries(line(member(messages_and_choices=turns)))
    assert entry.messages[0] == Message("user", "2 + 2?")
    parts.append({"type": "image_url", "image_url": {"url": "data:x"}})
    [entry] = entries(line(member(messages_and_choices=turns)))
    assert entry.messages[0].content == "2 + 2?"
    assert wire_messages(entry.messages)[0]["content"] == parts


def test_rows_of_a_table_are_refused_alone() -> None:
    rows: list[dict[str, Any]] = [
        {"messages": "[]", "response": "4"},
        {"response": 4},
        {"messages": '[{"role":"u","content":"?"}]', "response": "4"},
    ]
    found, refused = arranged(table_entries(rows, WINDOW), WINDOW, 30)
    assert [bad.place for bad in refused] == ["row 0", "row 1"]
    assert len(found[WINDOW].records) == 1


def test_another_answer_or_reward_for_one_step_is_refused() -> None:
    same = {"metadata": {"trajectory_id": "t"}}
    other = member(
        **same, messages_and_choices=[{"role": "user", "content": "other"}, *member()["messages_and_choices"][1:]]
    )
    third = member(reward=0.3, metadata={"trajectory_id": "t", "call": 1})
    found, refused = arranged(art_entries([line(member(**same), member(**same), other, third)], WINDOW), WINDOW, 30)
    assert [(bad.trajectory_id, bad.place) for bad in refused] == [
        ("t", "line 1 trajectory 2"),
        ("t", "line 1 trajectory 3"),
    ]
    assert [bad.reason for bad in refused] == [
        "another answer for step 0, call 0 of the trajectory t",
        "another reward or agent for step 0 of the trajectory t",
    ]
    assert len(found[WINDOW].records[0][0].samples) == 1


def test_the_window_is_that_of_the_file_or_the_given_one() -> None:
    placed = line(member(metadata={"window": LATER}))
    assert [each.window for each in entries(placed, window=None)] == [LATER]
    assert [each.window for each in entries(placed, window=WINDOW)] == [WINDOW]
    found, [bad] = arranged(art_entries([b"{", placed], None), None, 30)
    assert (list(found), bad.window) == ([LATER], LATER)
    with pytest.raises(
        PermanentError, match=r"line 1 trajectory 0: it does not say its window; give one with --window"
    ):
        arranged(art_entries([line(member())], None), None, 30)
    [bad] = arranged(art_entries([line(member(metadata={"window": "yesterday"})), placed], None), None, 30)[1]
    assert "is not a window" in bad.reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(member())), VALUES, st.sampled_from(["trajectory_id", "agent_id", "step", "call", "facts"])
)
def test_no_value_stops_the_rest(field: str, value: Any, named: str) -> None:
    hostile = member(**{field: value})
    about = member(metadata={named: value})
    found, refused = arranged(
        art_entries([msgspec.json.encode({"trajectories": [hostile, about, member()]})], WINDOW), WINDOW, 30
    )
    assert all(isinstance(bad, Quarantined) and bad.reason for bad in refused)
    answers = {raw.response for record, _ in found[WINDOW].records for raw in record.samples}
    assert "4" in answers
