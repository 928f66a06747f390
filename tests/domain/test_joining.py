"""Which recorded call belongs to which step, above all where the game kept no call."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from babylon_assets.domain.joining import JoinedWindow, join_calls, named_calls
from babylon_assets.domain.trajectories import Message, RawSample, TrajectoryRecord
from tests.domain.rows import START, call, record, step

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


def live(trajectory_id: str = "t1", steps: int = 1, **changes: Any) -> TrajectoryRecord:
    """A live agent's record: steps without calls."""
    return record([step(n, llmCalls=[]) for n in range(steps)], trajectory_id=trajectory_id, **changes)


def full(trajectory_id: str = "t1", steps: int = 1, call_id: str | None = None, **changes: Any) -> TrajectoryRecord:
    answers = [step(n, llmCalls=[call(callId=call_id, userPrompt=f"A yes 4{n}")]) for n in range(steps)]
    return record(answers, trajectory_id=trajectory_id, **changes)


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

    def test_the_callers_trajectory_id_decides_whatever_the_time(self) -> None:
        calls = {"c": Recorded(trajectory_id="t2", created_at=START - timedelta(hours=2))}
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

    def test_an_id_of_the_games_own_does_not_stand_in_the_way(self) -> None:
        calls = {"ours": Recorded()}
        assert joined_ids(join_calls([full(call_id="the game's")], calls), calls) == {("t1", 0): "ours"}

    def test_the_same_text_twice_is_counted_not_guessed(self) -> None:
        joined = join_calls([full()], {"a": Recorded(), "b": Recorded()})
        assert [sample.call for sample in joined.samples] == [None]
        assert (joined.counts["calls_joined"], joined.counts["calls_ambiguous"]) == (0, 2)


Calls = st.builds(
    Recorded,
    created_at=st.integers(-2, 12).map(lambda minutes: START + minutes * MINUTE),
    agent_id=st.sampled_from(["a1", "a2", None]),
    trajectory_id=st.sampled_from(["t0", "t1", "t2", "t3", None, None]),
    step=st.sampled_from([0, 1, 5, None, None]),
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
