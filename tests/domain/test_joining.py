"""Which recorded call belongs to which step, above all where the game kept no call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from babylon_assets.domain.joining import JoinedWindow, join_calls, named_calls
from babylon_assets.domain.trajectories import Message, RawSample, ToolCall, TrajectoryRecord
from tests.domain.rows import START, START_MS, call, record, step

MINUTE = timedelta(minutes=1)
PROMPT = [Message("system", "Trade."), Message("user", "A yes 40")]


@dataclass(frozen=True)
class Recorded:
    created_at: datetime = START + MINUTE
    model: str = "babylon-agent"
    policy: str | None = "babylon-agent@3"
    agent_id: str | None = "a1"
    trajectory_id: str | None = None
    step: int | None = None
    messages: list[Message] = field(default_factory=lambda: list(PROMPT))
    response: str = '{"action":"buy_yes"}'
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    temperature: float | None = 1.0
    key_name: str | None = None
    received_at: datetime | None = None
    latency_ms: float | None = None
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    sampling: Mapping[str, Any] | None = None


def live(trajectory_id: str = "t1", steps: int = 1, **changes: Any) -> TrajectoryRecord:
    """A live agent's record: steps without calls."""
    return record([step(n, llmCalls=[]) for n in range(steps)], trajectory_id=trajectory_id, **changes)


def full(trajectory_id: str = "t1", steps: int = 1, call_id: str | None = None, **changes: Any) -> TrajectoryRecord:
    answers = [step(n, llmCalls=[call(callId=call_id, userPrompt=f"A yes 4{n}")]) for n in range(steps)]
    return record(answers, trajectory_id=trajectory_id, **changes)


def question(number: int) -> list[Message]:
    return [Message("system", "Trade."), Message("user", f"A yes 4{number}")]


def joined_ids(joined: JoinedWindow, calls: dict[str, Recorded]) -> dict[tuple[str, int], str | None]:
    """Call id by (trajectory, step)."""
    names = {id(each): name for name, each in calls.items()}
    return {
        (each.record.trajectory_id, each.raw.step): None if each.call is None else names[id(each.call)]
        for each in joined.samples
    }


class TestLiveRows:
    def test_a_call_within_the_episode_becomes_its_sample(self) -> None:
        calls = {"c": Recorded()}
        joined = join_calls([live()], calls)
        [(owner, raw, found)] = joined.samples
        assert isinstance(raw, RawSample)
        assert (owner.trajectory_id, raw.step, raw.call, raw.call_id, found) == ("t1", 0, 0, "c", calls["c"])
        assert (raw.messages, raw.response, raw.model) == (PROMPT, '{"action":"buy_yes"}', "babylon-agent@3")
        assert joined.counts["calls_joined"] == 1
        assert joined.counts["steps_without_calls"] == joined.counts["trajectories_without_calls"] == 0

    def test_calls_of_others_and_of_other_times_are_not_taken(self) -> None:
        calls = {
            "early": Recorded(created_at=START - MINUTE),
            "late": Recorded(created_at=START + 11 * MINUTE),
            "other": Recorded(agent_id="a2"),
            "nobody": Recorded(agent_id=None),
            "elsewhere": Recorded(trajectory_id="t9"),
        }
        joined = join_calls([live(steps=2)], calls)
        assert joined.samples == []
        assert (joined.counts["trajectories_without_calls"], joined.counts["steps_without_calls"]) == (1, 2)
        assert joined.counts["calls_ambiguous"] == 0

    def test_the_callers_trajectory_id_decides_among_episodes_of_one_time(self) -> None:
        calls = {"c": Recorded(trajectory_id="t2")}
        joined = join_calls([live("t1"), live("t2")], calls)
        assert joined_ids(joined, calls) == {("t2", 0): "c"}

    def test_as_many_calls_as_steps_belong_to_them_in_the_order_of_time(self) -> None:
        calls = {"b": Recorded(created_at=START + 2 * MINUTE), "a": Recorded(created_at=START + 3 * MINUTE)}
        joined = join_calls([live(steps=2)], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "b", ("t1", 1): "a"}

    def test_calls_that_name_their_step_belong_to_it(self) -> None:
        calls = {"a": Recorded(step=2), "b": Recorded(step=0), "none": Recorded(step=7)}
        joined = join_calls([live(steps=3)], calls)
        assert joined_ids(joined, calls) == {("t1", 2): "a", ("t1", 0): "b"}
        assert (joined.counts["calls_ambiguous"], joined.counts["steps_without_calls"]) == (1, 1)

    def test_more_calls_than_steps_are_counted_not_guessed(self) -> None:
        calls = {"a": Recorded(), "b": Recorded(), "c": Recorded()}
        joined = join_calls([live(steps=2)], calls)
        assert (joined.samples, joined.counts["calls_ambiguous"], joined.counts["steps_without_calls"]) == ([], 3, 2)

    def test_a_call_within_two_episodes_of_its_agent_is_of_neither(self) -> None:
        joined = join_calls([live("t1"), live("t2")], {"c": Recorded()})
        assert (joined.samples, joined.counts["calls_ambiguous"]) == ([], 1)


class TestFullRows:
    def test_two_samples_never_share_a_call(self) -> None:
        records = [
            record([step(llmCalls=[call(callId="c")])], trajectory_id=name, agent_id=name) for name in ("t1", "t2")
        ]
        calls = {"c": Recorded()}
        joined = join_calls(records, calls)
        assert joined_ids(joined, calls) == {("t1", 0): None, ("t2", 0): None}
        assert joined.counts["calls_claimed_twice"] == 1

    def test_one_that_claims_a_call_with_its_text_wins_over_one_without(self) -> None:
        other = record([step(llmCalls=[call(callId="c", userPrompt="B")])], trajectory_id="t2", agent_id="a2")
        calls = {"c": Recorded()}
        joined = join_calls([other, record([step(llmCalls=[call(callId="c")])])], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "c", ("t2", 0): None}
        assert (joined.counts["calls_that_differ"], joined.counts["calls_claimed_twice"]) == (1, 0)

    def test_without_ids_the_text_decides(self) -> None:
        calls = {
            "a": Recorded(messages=[Message("system", "Trade."), Message("user", "A yes 41")]),
            "b": Recorded(messages=[Message("system", "Trade."), Message("user", "A yes 40")]),
            "reasoning": Recorded(response="Let me think."),
        }
        joined = join_calls([full(steps=2)], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "b", ("t1", 1): "a"}
        assert (joined.counts["calls_joined"], joined.counts["calls_ambiguous"]) == (2, 0)

    @pytest.mark.parametrize(
        ("answered", "recorded"),
        [
            ('{"action":"buy_yes"}', '<think>\nYes is cheap.\n</think>\n```json\n{"action": "buy_yes",}\n```'),
            ("I hold.", " I  hold.\n"),
            ('{"action":"buy_no","amount":-5}', '{"action": "buy_no",\n "amount": -5}'),
        ],
    )
    @pytest.mark.parametrize("call_id", ["c", None])
    def test_an_answer_in_another_form_is_the_same_answer(
        self, answered: str, recorded: str, call_id: str | None
    ) -> None:
        asked = [Message("developer", "Trade."), Message("user", "A yes  40\n")]
        kept = record([step(llmCalls=[call(callId=call_id, response=answered)])])
        calls = {"c": Recorded(response=recorded, messages=asked), "d": Recorded(response="sell", messages=asked)}
        joined = join_calls([kept], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "c"}
        assert joined.counts["calls_that_differ"] == 0

    @pytest.mark.parametrize("response", ['{"action":"buy_yes","amount":5}', '{"action":"buy_yes","amount":-50}'])
    def test_other_words_are_another_answer(self, response: str) -> None:
        kept = record([step(llmCalls=[call(callId="c", response='{"action":"buy_yes","amount":50}')])])
        joined = join_calls([kept], {"c": Recorded(response=response)})
        assert joined.counts["calls_that_differ"] == 1

    def test_an_answer_to_the_letter_goes_before_one_in_another_form(self) -> None:
        calls = {"a": Recorded(response='{"action": "buy_yes"}'), "b": Recorded()}
        assert joined_ids(join_calls([full()], calls), calls) == {("t1", 0): "b"}

    def test_tool_calls_are_the_same_whatever_stands_beside_them(self) -> None:
        asked = {"id": "1", "function": {"name": "buy", "arguments": {"a": 1, "b": 2}}}
        kept = record([step(llmCalls=[call(callId="c", response=None, toolCalls=[asked])])])
        calls = {"c": Recorded(response="x", tool_calls=(ToolCall("2", "buy", '{"b": 2, "a": 1}'),))}
        assert joined_ids(join_calls([kept], calls), calls) == {("t1", 0): "c"}

    def test_an_id_of_the_games_own_does_not_stand_in_the_way(self) -> None:
        calls = {"ours": Recorded()}
        assert joined_ids(join_calls([full(call_id="the game's")], calls), calls) == {("t1", 0): "ours"}

    def test_the_same_text_twice_is_counted_not_guessed(self) -> None:
        joined = join_calls([full()], {"a": Recorded(), "b": Recorded()})
        assert [sample.call for sample in joined.samples] == [None]
        assert (joined.counts["calls_joined"], joined.counts["calls_ambiguous"]) == (0, 2)


class TestIdentity:
    def test_a_call_that_names_another_agents_trajectory_is_not_of_it(self) -> None:
        calls = {"own": Recorded(trajectory_id="t1"), "foreign": Recorded(trajectory_id="t1", agent_id="a2")}
        joined = join_calls([live()], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "own"}
        assert (joined.counts["calls_of_other_agents"], joined.counts["calls_ambiguous"]) == (1, 0)

    def test_with_a_key_a_call_says_whose_it_is(self) -> None:
        calls = {"c": Recorded(trajectory_id="t1", agent_id=None, key_name="anna")}
        assert join_calls([live()], calls).counts["calls_of_other_agents"] == 1
        assert joined_ids(join_calls([live()], calls := {"c": Recorded(trajectory_id="t1", agent_id=None)}), calls)

    @pytest.mark.parametrize("lie", [{}, {"created_at": START + MINUTE}])
    @pytest.mark.parametrize("place", [{"trajectory_id": "t1", "step": 0}, {"trajectory_id": "t1"}, {}])
    def test_what_was_recorded_after_the_episode_trains_nothing(
        self, lie: dict[str, Any], place: dict[str, Any]
    ) -> None:
        after = START + 40 * MINUTE
        calls = {"c": Recorded(**{"created_at": after, "received_at": after, **place, **lie})}
        joined = join_calls([live()], calls)
        assert joined.samples == []
        assert joined.counts["calls_out_of_time"] == bool(place or lie)

    @pytest.mark.parametrize("place", [{"trajectory_id": "t1", "step": 0}, {"trajectory_id": "t1"}, {}])
    def test_an_answer_that_the_record_has_is_only_of_who_gave_it_in_time(self, place: dict[str, Any]) -> None:
        for minutes, joins in ((1, True), (40, False)):
            calls = {"c": Recorded(received_at=START + minutes * MINUTE, **place)}
            joined = join_calls([full()], calls)
            assert joined_ids(joined, calls) == {("t1", 0): "c" if joins else None}
            assert joined.counts["calls_out_of_time"] == (not joins)

    def test_what_was_recorded_after_the_next_step_is_not_of_the_step(self) -> None:
        late: dict[str, Any] = {"trajectory_id": "t1", "step": 1, "created_at": START + MINUTE}
        joined = join_calls([live(steps=9)], {"c": Recorded(**late, received_at=START + 5 * MINUTE)})
        assert (joined.samples, joined.counts["calls_out_of_time"]) == ([], 1)
        [sample] = join_calls([live(steps=9)], {"c": Recorded(**late, received_at=START + 2.5 * MINUTE)}).samples
        assert sample.raw.step == 1

    @pytest.mark.parametrize("named", [True, False])
    def test_what_came_when_the_outcome_may_be_known_trains_nothing(self, named: bool) -> None:
        """Within the episode, and before the next step, which comes late."""
        rows = [step(0, llmCalls=[]), step(1, llmCalls=[], timestamp=START_MS + 9 * 60_000)]
        for minutes, joins in ((4, True), (8, False)):
            at = START + minutes * MINUTE
            calls = {
                "early": Recorded(step=0 if named else None, created_at=at, received_at=at),
                "last": Recorded(step=1 if named else None, created_at=START + 9 * MINUTE),
            }
            joined = join_calls([record(rows)], calls)
            assert (("t1", 0) in joined_ids(joined, calls), ("t1", 1) in joined_ids(joined, calls)) == (joins, True)
            assert joined.counts["calls_out_of_time"] == (not joins)

    def test_steps_without_a_time_of_their_own_bound_nothing(self) -> None:
        rows = [step(n, llmCalls=[], timestamp=None) for n in range(3)]
        calls = {f"c{n}": Recorded(step=n, created_at=START + (3 * n + 3) * MINUTE) for n in range(3)}
        assert len(join_calls([record(rows)], calls).samples) == 3

    def test_clocks_that_differ_by_forty_seconds_lose_nothing(self) -> None:
        end = START + 10 * MINUTE
        at = [START - timedelta(seconds=40), end + timedelta(seconds=40)]
        calls = {
            f"c{n}": Recorded(trajectory_id="t1", step=9 * n, created_at=time, received_at=time)
            for n, time in enumerate(at)
        }
        assert joined_ids(join_calls([live(steps=10)], calls), calls) == {("t1", 0): "c0", ("t1", 9): "c1"}

    @pytest.mark.parametrize("shape", [live, full])
    @pytest.mark.parametrize("named", [{}, {"trajectory_id": "t1"}])
    def test_copies_by_another_key_make_nobody_ambiguous(self, shape: Any, named: dict[str, Any]) -> None:
        calls = {"own": Recorded(**named, key_name="anna")}
        calls |= {
            f"copy{n}": Recorded(**named, key_name="mallory", created_at=START + MINUTE * (1.5 + n)) for n in range(5)
        }
        joined = join_calls([shape()], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "own"}
        assert (joined.counts["calls_of_other_keys"], joined.counts["calls_ambiguous"]) == (5, 0)

    @pytest.mark.parametrize("shape", [live, full])
    def test_who_does_not_say_for_whom_makes_nobody_ambiguous(self, shape: Any) -> None:
        copy: dict[str, Any] = {"trajectory_id": "t1", "agent_id": None}
        calls = {f"copy{n}": Recorded(**copy, created_at=START + n * 2 * MINUTE) for n in range(5)} | {
            "own": Recorded()
        }
        joined = join_calls([shape()], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "own"}
        assert (joined.counts["calls_of_other_keys"], joined.counts["calls_ambiguous"]) == (5, 0)

    def test_the_key_whose_calls_fit_the_steps_is_believed(self) -> None:
        calls = {f"c{n}": Recorded(step=n, created_at=START + n * MINUTE, key_name="anna") for n in range(1, 5)}
        calls["first"] = Recorded(step=1, created_at=START, key_name="mallory")
        joined = join_calls([live(steps=5)], calls)
        assert joined_ids(joined, calls) == {("t1", n): f"c{n}" for n in range(1, 5)}

    def test_the_key_that_the_environment_names_is_believed(self) -> None:
        calls = {
            "named": Recorded(key_name="anna"),
            "copy": Recorded(key_name="mallory", messages=question(1), created_at=START),
            "own": Recorded(key_name="anna", messages=question(1), created_at=START + 2 * MINUTE),
        }
        records = [record([step(0, llmCalls=[call(callId="named")]), step(1, llmCalls=[call(userPrompt="A yes 41")])])]
        joined = join_calls(records, calls)
        assert joined_ids(joined, calls) == {("t1", 0): "named", ("t1", 1): "own"}

    def test_a_row_that_names_another_agents_call_takes_it_from_nobody(self) -> None:
        records = [
            record([step(llmCalls=[call(callId="c")])], trajectory_id=f"t-{name}", agent_id=name)
            for name in ("a1", "mallory")
        ]
        calls = {"c": Recorded()}
        joined = join_calls(records, calls)
        assert joined_ids(joined, calls) == {("t-a1", 0): "c", ("t-mallory", 0): None}
        assert joined.counts["calls_claimed_twice"] == 0


class TestRetries:
    def test_one_retry_costs_nothing(self) -> None:
        calls = {f"c{n:02d}": Recorded(messages=question(n), created_at=START + n * MINUTE / 2) for n in range(14)}
        retry = Recorded(messages=question(5), created_at=START + timedelta(seconds=155), response="again")
        joined = join_calls([live(steps=14)], calls | {"retry": retry})
        expected = {("t1", n): f"c{n:02d}" for n in range(14)} | {("t1", 5): "retry"}
        assert joined_ids(joined, calls | {"retry": retry}) == expected
        assert (joined.counts["calls_repeated"], joined.counts["calls_ambiguous"]) == (1, 0)

    @pytest.mark.parametrize("delivered", [True, False])
    def test_a_retry_after_the_next_question_is_of_its_own_step(self, delivered: bool) -> None:
        calls = {f"c{n}": Recorded(messages=question(n), created_at=START + n * MINUTE / 4) for n in range(3)}
        again = "the same" if delivered else calls["c0"].response
        retry = Recorded(messages=question(0), created_at=START + timedelta(seconds=25), response=again)
        joined = join_calls([live(steps=3)], calls | {"retry": retry})
        assert joined_ids(joined, calls | {"retry": retry}) == {("t1", 0): "retry", ("t1", 1): "c1", ("t1", 2): "c2"}
        assert (joined.counts["calls_repeated"], joined.counts["calls_ambiguous"]) == (1, 0)

    def test_a_retry_of_a_step_that_is_named_is_one_answer(self) -> None:
        slow = Recorded(step=1, created_at=START + MINUTE, latency_ms=100_000)
        calls = {"slow": slow, "retry": Recorded(step=1, created_at=START + MINUTE + timedelta(seconds=120))}
        assert joined_ids(join_calls([live(steps=2)], calls), calls) == {("t1", 1): "retry"}

    def test_a_retry_with_the_same_answer_is_one_answer(self) -> None:
        calls = {"first": Recorded(), "again": Recorded(created_at=START + MINUTE + timedelta(seconds=9))}
        joined = join_calls([full()], calls)
        assert joined_ids(joined, calls) == {("t1", 0): "again"}
        assert joined.counts["calls_repeated"] == 1

    def test_the_same_question_at_another_time_is_another_question(self) -> None:
        calls = {"first": Recorded(), "later": Recorded(created_at=START + 3 * MINUTE)}
        joined = join_calls([full()], calls)
        assert ([sample.call for sample in joined.samples], joined.counts["calls_ambiguous"]) == ([None], 2)

    def test_of_several_choices_none_is_guessed(self) -> None:
        at = START + MINUTE
        calls = {f"c{n}": Recorded(received_at=at, response=f"choice {n}") for n in range(2)}
        assert join_calls([live()], calls).counts["calls_ambiguous"] == 2

    def test_as_many_like_questions_as_steps_are_no_retries(self) -> None:
        calls = {f"c{n}": Recorded(created_at=START + n * timedelta(seconds=9)) for n in range(3)}
        assert joined_ids(join_calls([live(steps=3)], calls), calls) == {("t1", n): f"c{n}" for n in range(3)}


class TestAnonymousCalls:
    """An agent whose client sends nothing but its messages."""

    @pytest.mark.parametrize("seconds", [-40, 0, 40])
    def test_the_text_joins_them_to_the_one_sample_that_has_it(self, seconds: int) -> None:
        off = timedelta(seconds=seconds)
        calls = {
            f"{agent}{n}": Recorded(
                agent_id=None,
                messages=question(n),
                response=f"{agent} buys",
                created_at=START + n * MINUTE + off,
                received_at=START + n * MINUTE + off,
            )
            for agent in ("a1", "a2")
            for n in range(4)
        }
        records = [
            record(
                [
                    step(n, llmCalls=[call(callId=None, userPrompt=f"A yes 4{n}", response=f"{agent} buys")])
                    for n in range(4)
                ],
                trajectory_id=f"t-{agent}",
                agent_id=agent,
            )
            for agent in ("a1", "a2")
        ]
        joined = join_calls(records, calls)
        assert joined_ids(joined, calls) == {(f"t-{name[:2]}", int(name[2:])): name for name in calls}
        assert joined.counts["calls_ambiguous"] == 0

    def test_what_three_agents_said_in_one_second_is_counted_not_guessed(self) -> None:
        calls = {f"c{n}": Recorded(agent_id=None, created_at=START + timedelta(seconds=n)) for n in range(3)}
        joined = join_calls([full(f"t{n}", agent_id=f"a{n}") for n in range(3)], calls)
        assert [sample.call for sample in joined.samples] == [None] * 3
        assert joined.counts["calls_joined"] == 0
        assert joined.counts["calls_ambiguous"] + joined.counts["calls_repeated"] == 3

    def test_the_same_text_at_another_time_is_another_answer(self) -> None:
        later = full("t2", agent_id="a2", start_time=START + 20 * MINUTE, end_time=START + 30 * MINUTE)
        moved = replace(later, facts=[replace(fact, timestamp_ms=START_MS + 1_300_000) for fact in later.facts])
        calls = {"first": Recorded(agent_id=None), "later": Recorded(agent_id=None, created_at=START + 22 * MINUTE)}
        assert joined_ids(join_calls([full(), moved], calls), calls) == {("t1", 0): "first", ("t2", 0): "later"}

    def test_a_retry_is_one_answer(self) -> None:
        calls = {f"c{n}": Recorded(agent_id=None, created_at=START + timedelta(seconds=9 * n)) for n in range(2)}
        assert joined_ids(join_calls([full()], calls), calls) == {("t1", 0): "c1"}

    def test_a_record_without_texts_gets_none(self) -> None:
        assert join_calls([live()], {"c": Recorded(agent_id=None)}).samples == []


Calls = st.builds(
    Recorded,
    created_at=st.integers(-2, 12).map(lambda minutes: START + minutes * MINUTE),
    agent_id=st.sampled_from(["a1", "a2", None]),
    trajectory_id=st.sampled_from(["t0", "t1", "t2", "t3", None, None]),
    step=st.sampled_from([0, 1, 5, None, None]),
    key_name=st.sampled_from([None, None, "anna", "mallory"]),
    received_at=st.sampled_from([None, START + MINUTE, START + 40 * MINUTE]),
    response=st.sampled_from(['{"action":"buy_yes"}', "think"]),
)
Records = st.lists(
    st.tuples(st.sampled_from([live, full]), st.integers(0, 3), st.sampled_from(["a1", "a2"])), max_size=4
)


@given(Records, st.lists(Calls, max_size=6), st.randoms())
def test_no_call_is_used_twice_and_the_order_of_rows_changes_nothing(
    drawn: list[Any], given_calls: list[Recorded], random: Any
) -> None:
    records = [make(f"t{n}", steps, agent_id=agent) for n, (make, steps, agent) in enumerate(drawn)]
    calls = {f"c{n}": each for n, each in enumerate(given_calls)}
    joined = join_calls(records, calls)
    used = [id(sample.call) for sample in joined.samples if sample.call is not None]
    assert len(used) == len(set(used))
    steps = [(s.record.trajectory_id, s.raw.step, s.raw.call) for s in joined.samples]
    assert len(steps) == len(set(steps))
    shuffled = random.sample(records, len(records)), dict(random.sample(sorted(calls.items()), len(calls)))
    assert join_calls(*shuffled) == joined


def test_the_calls_that_samples_name() -> None:
    assert named_calls([full("t1", call_id="c1"), live("t2", agent_id="a2"), full("t3")]) == ["c1"]
