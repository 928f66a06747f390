"""Decoding rows of the game: what comes through, what is refused with which reason, and that nothing crashes."""

from __future__ import annotations

import json
import random
import re
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from babylon_assets.domain.frames import STEP_COLUMNS
from babylon_assets.domain.trajectories import Message, Quarantined, StepFacts, ToolCall, TrajectoryRecord
from babylon_assets.environments.babylon.decoding import decode_row
from babylon_assets.environments.babylon.details import DETAIL, make_step, steps_frame
from tests.domain.rows import START_MS, call, record, refused, source_row, step


def _facts(**changes: Any) -> StepFacts:
    return record([step(**changes)]).facts[0]


def _action(kind: str, parameters: Any = None, success: Any = True, **more: Any) -> StepFacts:
    return _facts(action={"actionType": kind, "parameters": parameters, "success": success, **more})


class TestFullRow:
    def test_the_facts_of_a_step(self) -> None:
        assert _facts() == make_step(
            step=0,
            timestamp_ms=START_MS,
            moment_ms=START_MS,
            balance=1000.0,
            pnl=5.0,
            action_type="BUY_PREDICTION_SHARES",
            market_type="prediction",
            market_id="m1",
            ticker=None,
            side="yes",
            amount=25.0,
            success=True,
            error=None,
            invalid=False,
        )

    def test_a_sample_is_what_the_policy_saw_and_said(self) -> None:
        (sample,) = record([step()]).samples
        assert sample.messages == [Message("system", "Trade."), Message("user", "A yes 40")]
        assert (sample.step, sample.call, sample.call_id) == (0, 0, "call-0")
        assert (sample.model, sample.temperature, sample.response) == ("babylon-agent@3", 1.0, '{"action":"buy_yes"}')

    def test_only_calls_of_purpose_action_become_samples(self) -> None:
        calls = [call(purpose="reasoning"), call(response="second"), call(purpose=None)]
        (sample,) = record([step(llmCalls=calls)]).samples
        assert (sample.call, sample.response) == (1, "second")

    def test_recorded_messages_go_before_the_two_prompts(self) -> None:
        messages = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "hm"}]
        (sample,) = record([step(llmCalls=[call(messages=messages)])]).samples
        assert sample.messages == [Message("user", "look"), Message("assistant", "hm")]

    def test_the_answer_itself_is_not_part_of_its_prompt(self) -> None:
        messages = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "done"}]
        (sample,) = record([step(llmCalls=[call(messages=messages, response="done")])]).samples
        assert sample.messages == [Message("user", "look")]

    def test_content_in_parts_is_joined(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        (sample,) = record([step(llmCalls=[call(messages=[{"role": "user", "content": parts}])])]).samples
        assert sample.messages == [Message("user", "ab")]

    def test_an_empty_answer_is_an_answer_and_no_answer_is_none(self) -> None:
        assert [s.response for s in record([step(llmCalls=[call(response=""), call(response=None)])]).samples] == [""]

    def test_the_moment_is_that_of_the_market_that_was_seen(self) -> None:
        facts = _facts(environmentState={"timestamp": START_MS - 20_000})
        assert (facts.timestamp_ms, facts.moment_ms) == (START_MS, START_MS - 20_000)


class TestShapes:
    def test_a_live_row_has_facts_and_no_samples(self) -> None:
        live = record([step(llmCalls=[])])
        assert (live.shape, len(live.facts), live.samples) == ("live", 1, [])

    def test_no_steps_at_all_is_legal(self) -> None:
        assert record([]).facts == []

    def test_a_row_with_calls_is_full(self) -> None:
        assert record([step()]).shape == "full"

    def test_a_row_without_window_or_with_the_second_recorders_keys_is_a_loggers(self) -> None:
        assert record([step()], window_given=False).shape == "logger"
        assert record([step(stepId="t1-step-0", observation={}, done=False, metadata={})]).shape == "logger"

    def test_what_a_row_does_not_say_is_unknown(self) -> None:
        facts = record([{"action": {"actionType": "HOLD"}}]).facts[0]
        assert (facts.detail.get("balance"), facts.detail.get("pnl"), facts.success, facts.error) == (
            None,
            None,
            None,
            None,
        )
        assert facts.timestamp_ms == facts.moment_ms == START_MS


class TestLenientValues:
    @pytest.mark.parametrize(
        ("written", "read"),
        [("12.5", 12.5), (" 7 ", 7.0), (None, None), ("n/a", None), (True, None), ([], None), ("1e999", None)],
    )
    def test_numbers(self, written: object, read: float | None) -> None:
        assert _facts(environmentState={"agentBalance": written, "agentPnL": written}).detail.get("pnl") == read

    def test_nan_as_python_writes_it_is_unknown(self) -> None:
        facts = _facts(environmentState={"agentBalance": float("nan"), "agentPnL": float("-inf")})
        assert (facts.detail.get("balance"), facts.detail.get("pnl"), facts.action_type) == (
            None,
            None,
            "BUY_PREDICTION_SHARES",
        )

    def test_the_word_nan_in_a_text_is_a_word(self) -> None:
        assert record([step(llmCalls=[call(response="NaN")])]).samples[0].response == "NaN"

    @pytest.mark.parametrize("numbers", [[3, 3], [None, 1], ["x", 2], [-1, 0], [2**40, 1], [0.5, 1]])
    def test_step_numbers_that_name_no_step_give_way_to_positions(self, numbers: list[object]) -> None:
        assert [f.step for f in record([step(stepNumber=n) for n in numbers]).facts] == [0, 1]

    def test_distinct_step_numbers_are_kept(self) -> None:
        assert [f.step for f in record([step(stepNumber="7"), step(stepNumber=9)]).facts] == [7, 9]

    def test_a_nul_in_a_name_becomes_a_replacement_character(self) -> None:
        assert _action("HO\0LD").action_type == "HO\ufffdLD"


class TestActions:
    @pytest.mark.parametrize(
        ("kind", "parameters", "expected"),
        [
            ("TRADING_DECISION", {"ticker": "ACME", "side": "Long"}, ("perp", None, "ACME", "long")),
            ("TRADING_DECISION", {"marketId": "m9", "side": "NO"}, ("prediction", "m9", None, "no")),
            ("TRADING_DECISION", {"method": "analysis", "pnlChange": 0}, (None, None, None, None)),
            ("buy_no", {"marketId": 12}, ("prediction", "12", None, "no")),
            ("open_short", {"ticker": "ACME"}, ("perp", None, "ACME", "short")),
            (
                "OPEN_PERP_POSITION",
                {"marketType": "PERP", "ticker": "B", "side": "SHORT"},
                ("perp", None, "B", "short"),
            ),
            ("BUY_SHARES", {"marketId": "m1", "outcome": "yes"}, ("prediction", "m1", None, "yes")),
            ("BUY_SHARES", {"marketId": "m1"}, ("prediction", "m1", None, None)),
            ("BUY_SHARES", "not an object", (None, None, None, None)),
            ("CREATE_POST", {"marketId": "m1", "side": "YES"}, (None, None, None, None)),
            ("HOLD", {"marketId": "m1", "side": "YES"}, (None, None, None, None)),
        ],
    )
    def test_what_it_was_about(self, kind: str, parameters: object, expected: tuple[str | None, ...]) -> None:
        facts = _action(kind, parameters)
        assert (
            facts.detail.get("market_type"),
            facts.detail.get("market_id"),
            facts.detail.get("ticker"),
            facts.detail.get("side"),
        ) == expected

    @pytest.mark.parametrize(
        ("kind", "success", "error", "invalid"),
        [
            ("INVALID_ACTION", False, "not JSON", True),
            ("INVALID_ACTION", False, None, True),
            ("BUY_SHARES", False, "insufficient balance", True),
            ("BUY_SHARES", "false", {"code": 3}, True),
            ("BUY_SHARES", False, "", False),
            ("BUY_SHARES", True, "slippage", False),
            ("TRADING_DECISION", False, None, False),
            ("TRADING_DECISION", False, "no such market", True),
            ("hold", False, "nothing to do", False),
        ],
    )
    def test_bad_behaviour_is_invalid_and_never_refused(
        self, kind: str, success: object, error: object, invalid: bool
    ) -> None:
        assert _action(kind, {}, success, error=error).invalid is invalid


class TestRefused:
    @pytest.mark.parametrize(
        ("steps", "reason", "place"),
        [
            ("{}", "Expected `array`, got `object`", "stepsJson"),
            ("null", "Expected `array`, got `null`", "stepsJson"),
            ("", "not JSON: Input data was truncated", "stepsJson"),
            (json.dumps([step()])[:-40], "not JSON: Input data was truncated", "stepsJson"),
            ("[}", "not JSON: JSON is malformed: invalid character (byte 1)", "stepsJson byte 1"),
            ([step(action=None)], "Expected `object`, got `null`", "stepsJson[0].action"),
            ([{"stepNumber": 0}], "Object missing required field `action`", "stepsJson[0]"),
        ],
    )
    def test_with_reason_and_place(self, steps: Any, reason: str | None, place: str | None) -> None:
        entry = refused(steps)
        assert reason in (None, entry.reason)
        assert place in (None, entry.place)
        assert (entry.trajectory_id, len(entry.row_hash)) == ("t1", 64)


class TestDropped:
    """The smallest part that cannot be read is left out and counted; the rest of the trajectory stays."""

    @pytest.mark.parametrize(
        ("odd", "dropped"),
        [
            (None, {"steps that cannot be read": 1}),
            ({"action": None}, {"steps that cannot be read": 1}),
            ({"action": {"parameters": {}}}, {"steps that cannot be read": 1}),
            (step(1, environmentState="x"), {"states that cannot be read": 1}),
            (step(1, llmCalls={}), {"calls that cannot be read": 1}),
            (step(1, llmCalls=[None, call()]), {"calls that cannot be read": 1}),
            (step(1, llmCalls=[call(systemPrompt=None, userPrompt="")]), {"calls without a prompt": 1}),
            (step(1, environmentState={"agentPnL": 1e400}), {}),
        ],
    )
    def test_a_part_that_cannot_be_read(self, odd: Any, dropped: dict[str, int]) -> None:
        read = record(json.dumps([step(), odd]).replace("Infinity", "1e400"))
        assert read.dropped == dropped
        assert [fact.step for fact in read.facts] == [0, 1][: 1 if "steps that cannot be read" in dropped else 2]
        assert (read.samples[0].step, read.samples[0].response) == (0, '{"action":"buy_yes"}')

    @pytest.mark.parametrize("half", ["\ud83d", "\udc00", "\ude00\ud83d", "\\\\\ud83d"])
    def test_half_a_character_becomes_the_replacement_character(self, half: str) -> None:
        read = record([step(0, llmCalls=[call(response=f"cut {half}, whole \U0001f600")])])
        assert read.samples[0].response == "cut " + re.sub(r"[\ud800-\udfff]", "\ufffd", half) + ", whole \U0001f600"
        assert read.dropped == {"cut characters": len(half.replace("\\", ""))}

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "calls with a tool call that cannot be read"),
            ({"role": None, "content": "x"}, "calls with a message without a role"),
            ({"role": "user", "content": 7}, "calls with a message whose content cannot be read"),
        ],
    )
    def test_a_call_whose_texts_are_not_known_costs_that_call(self, message: Any, reason: str) -> None:
        odd = call(messages=[{"role": "user", "content": "look"}, message])
        read = record([step(0, llmCalls=[odd]), step(1)])
        assert [sample.step for sample in read.samples] == [1]
        assert [name[: len(reason)] for name in read.dropped] == [reason]

    def test_content_that_is_null_is_an_empty_text(self) -> None:
        messages = [{"role": "user", "content": "look"}, {"role": "assistant", "content": None}]
        (sample,) = record([step(llmCalls=[call(messages=messages)])]).samples
        assert sample.messages == [Message("user", "look"), Message("assistant", "")]


class TestTools:
    """What a policy did with tools, and what it was told by them, is kept as it was."""

    CALL: ClassVar[dict[str, Any]] = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"a": 1}'},
    }
    LOOK = ToolCall("c1", "look", '{"a": 1}')

    def test_a_conversation_with_tools_is_a_sample(self) -> None:
        messages = [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": None, "tool_calls": [self.CALL]},
            {"role": "tool", "content": "7", "tool_call_id": "c1"},
        ]
        offered = [{"type": "function", "function": {"name": "look"}}]
        (sample,) = record([step(llmCalls=[call(messages=messages, response="done", tools=offered)])]).samples
        assert sample.messages == [
            Message("user", "look"),
            Message("assistant", "", (self.LOOK,)),
            Message("tool", "7", tool_call_id="c1"),
        ]
        assert (sample.response, sample.tool_calls) == ("done", ())
        assert sample.tools == '[{"function":{"name":"look"},"type":"function"}]'

    @pytest.mark.parametrize("spelling", ["toolCalls", "tool_calls", "messages"])
    def test_an_answer_may_be_tool_calls_alone(self, spelling: str) -> None:
        messages = [{"role": "user", "content": "look"}]
        changes: dict[str, Any] = {spelling: [self.CALL], "messages": messages}
        if spelling == "messages":
            changes["messages"] = [*messages, {"role": "assistant", "content": None, "tool_calls": [self.CALL]}]
        (sample,) = record([step(llmCalls=[call(response=None, **changes)])]).samples
        assert (sample.messages, sample.response) == ([Message("user", "look")], "")
        assert sample.tool_calls == (self.LOOK,)

    def test_arguments_that_are_an_object_are_their_json(self) -> None:
        odd = {"function": {"name": "look", "arguments": {"b": 2, "a": 1}}}
        (sample,) = record([step(llmCalls=[call(response="", toolCalls=[odd])])]).samples
        assert sample.tool_calls == (ToolCall("", "look", '{"a":1,"b":2}'),)

    def test_a_call_without_an_answer_is_counted(self) -> None:
        assert record([step(llmCalls=[call(response=None), call()])]).dropped == {"calls without an answer": 1}

    def test_a_thought_that_was_taken_out_of_an_answer_is_kept_beside_it(self) -> None:
        calls = [
            call(rawReasoningTrace="cheap", response="buy"),
            call(rawReasoningTrace="x", response="<think>x</think>"),
        ]
        first, second = record([step(0, llmCalls=calls[:1]), step(1, llmCalls=calls[1:])]).samples
        assert (first.reasoning, second.reasoning) == ("cheap", None)

    def test_a_part_that_is_no_text_is_kept(self) -> None:
        parts = [{"type": "text", "text": "see"}, {"type": "image_url"}]
        (sample,) = record([step(llmCalls=[call(messages=[{"role": "user", "content": parts}])])]).samples
        assert sample.messages[0].content == "see"
        assert json.loads(sample.messages[0].parts or "") == parts


class TestAnswers:
    """Of several calls of a step the last one was carried out; the game refused those before it."""

    def test_the_last_call_is_the_answer(self) -> None:
        calls = [call(response="I wait"), call(response="{"), call(response="buy")]
        samples = record([step(llmCalls=calls)]).samples
        assert [(sample.response, sample.refused) for sample in samples] == [
            ("I wait", True),
            ("{", True),
            ("buy", False),
        ]

    @pytest.mark.parametrize("place", ["action", "parameters"])
    def test_after_a_fallback_no_answer_stands(self, place: str) -> None:
        action: dict[str, Any] = {"actionType": "COMMENT", "success": True, "parameters": {}}
        (action if place == "action" else action["parameters"])["reasoning"] = "Parser fallback selected a comment."
        read = record([step(llmCalls=[call(), call(response="x")], action=action)])
        assert [sample.refused for sample in read.samples] == [True, True]
        assert read.facts[0].invalid

    def test_without_a_call_of_purpose_action_the_last_one_chose(self) -> None:
        calls = [call(purpose="reasoning"), call(purpose="response", response="hi")]
        (sample,) = record([step(llmCalls=calls)]).samples
        assert (sample.response, sample.refused) == ("hi", False)


class TestHash:
    def test_it_follows_everything_that_was_read(self) -> None:
        rows = [
            source_row([step()]),
            source_row([step(reward=1.0)]),
            source_row([step()], final_status="error"),
            source_row([step()], final_pnl=8.0),
            source_row([step()], agent_id="a2"),
        ]
        hashes = {decoded.content_hash for row in rows if isinstance(decoded := decode_row(row), TrajectoryRecord)}
        assert len(hashes) == len(rows)
        assert record([step()]).content_hash in hashes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    ("action",),
    ("action", "actionType"),
    ("action", "parameters"),
    ("action", "parameters", "side"),
    ("action", "success"),
    ("action", "error"),
    ("environmentState",),
    ("environmentState", "agentPnL"),
    ("environmentState", "timestamp"),
    ("llmCalls",),
    ("llmCalls", 0),
    ("llmCalls", 0, "messages"),
    ("llmCalls", 0, "response"),
    ("llmCalls", 0, "temperature"),
    ("stepNumber",),
    ("timestamp",),
]


def _put(target: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value


def _checked(text: bytes) -> None:
    """Whatever the row holds, it is either read into something that can be kept, or refused with a reason."""
    decoded = decode_row(source_row(text))
    if isinstance(decoded, Quarantined):
        assert decoded.reason and decoded.place.startswith("stepsJson")
        assert b"\0" not in (decoded.reason + decoded.place).encode()
        return
    steps_frame([decoded])
    for sample in decoded.samples:
        assert sample.messages
        "".join([sample.response, *(m.role + m.content for m in sample.messages)]).encode()
    for facts in decoded.facts:
        assert 0 <= facts.step < 2**31
        assert not any(
            "\0" in str(value)
            for value in (facts.action_type, facts.detail.get("market_id"), facts.detail.get("ticker"), facts.error)
        )


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.sampled_from(PATHS), JSON)
@example(("action", "parameters", "side"), "\ud800")
@example(("environmentState", "agentPnL"), 10**400)
@example(("environmentState", "agentPnL"), 10**4000)
@example(("action", "error"), {"a": [10**30]})
def test_any_value_in_any_place_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    steps = [step(0), step(1)]
    _put(steps[1], path, value)
    _checked(json.dumps(steps).encode())


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2**32))
def test_bytes_that_were_cut_or_changed_are_read_or_refused(seed: int) -> None:
    rng, text = random.Random(seed), bytearray(json.dumps([step(0), step(1)]).encode())
    for _ in range(rng.randrange(1, 4)):
        where = rng.randrange(len(text))
        text[where : where + rng.randrange(3)] = rng.choice(
            [b"", b"\xff", b"NaN", b'"', b"\\u0000", b"\\ud83d", b"]", b"{"]
        )
    _checked(bytes(text[: rng.choice([len(text), rng.randrange(len(text) + 1)])]))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4), st.text(max_size=20))
def test_what_was_written_is_what_is_read(amounts: list[float], text: str) -> None:
    steps = [
        step(
            number,
            environmentState={"agentBalance": amount, "agentPnL": -amount},
            llmCalls=[call(userPrompt=f"see {text}", response=text)],
        )
        for number, amount in enumerate(amounts)
    ]
    read = record(steps)
    assert [f.detail.get("balance") for f in read.facts] == amounts
    assert [f.detail.get("pnl") for f in read.facts] == [-a for a in amounts]
    assert {s.response for s in read.samples} == {text}
    assert {s.messages[1].content for s in read.samples} == {f"see {text}"}


OF_A_CALL = ("messages", "tools", "toolCalls")
#: Where a value that is nested deeply may stand, and around it what is needed there.
DEEP: list[tuple[tuple[Any, ...], Any]] = [
    (("stepId",), "@"),
    (("more",), "@"),
    (("environmentState",), "@"),
    (("action", "parameters", "amount"), "@"),
    (("action", "error"), "@"),
    (("llmCalls", 0, "more"), "@"),
    (("llmCalls", 0, "messages"), [{"role": "user", "content": [{"type": "text", "text": "?"}, "@"]}]),
    (("llmCalls", 0, "tools"), [{"type": "function", "function": {"name": "f", "parameters": "@"}}]),
    (("llmCalls", 0, "tools"), ["@"]),
    (("llmCalls", 0, "toolCalls"), [{"function": {"name": "f", "arguments": "@"}}]),
]


@pytest.mark.parametrize("levels", [100, 900, 980, 100_000])
@pytest.mark.parametrize(("path", "around"), DEEP)
def test_a_value_that_is_nested_too_deeply_costs_what_it_is_part_of(
    path: tuple[Any, ...], around: Any, levels: int
) -> None:
    steps = [step(0), step(1)]
    _put(steps[1], path, around)
    text = json.dumps(steps).replace('"@"', "[" * levels + "]" * levels)
    read = decode_row(source_row(text.encode()))
    assert isinstance(read, TrajectoryRecord)
    assert [fact.step for fact in read.facts] == [0, 1]
    own = path[-1] if path[-1] in OF_A_CALL else None
    assert [sample.step for sample in read.samples] == ([0] if own else [0, 1])
    assert bool(read.dropped) == (levels > 900 or own is not None or path == ("environmentState",))


class TestStepsFrame:
    def test_a_row_per_step_with_its_owner(self) -> None:
        frame = steps_frame([record([step(0), step(1)]), record([step(0)], trajectory_id="t2", agent_id="a2")])
        assert list(frame.columns) == [*STEP_COLUMNS, *DETAIL]
        assert frame[["trajectory_id", "agent_id", "step"]].values.tolist() == [
            ["t1", "a1", 0],
            ["t1", "a1", 1],
            ["t2", "a2", 0],
        ]

    def test_types_do_not_depend_on_content(self) -> None:
        assert (steps_frame([]).dtypes == steps_frame([record([step()])]).dtypes).all()
