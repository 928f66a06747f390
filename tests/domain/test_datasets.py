"""Datasets: what each sample trains as, against what, and under which id."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.domain.content_ids import canonical_json, content_id
from babylon_assets.domain.datasets import Dataset, Sample, build_dataset, dataset_id, decode, encode
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.joining import COUNTS
from babylon_assets.domain.trajectories import Message, ToolCall, TrajectoryRecord
from tests.domain.rows import START, START_MS, WINDOW, call, record, step

MODEL = "babylon-agent"


@dataclass(frozen=True)
class Recorded:
    """An answer as it was recorded when it was sampled."""

    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    policy: str | None = "babylon-agent@3"
    model: str = "babylon-agent"
    created_at: datetime = START
    agent_id: str | None = None
    trajectory_id: str | None = None
    step: int | None = None
    temperature: float | None = 1.0
    key_name: str | None = None
    received_at: datetime | None = None
    latency_ms: float | None = None
    messages: list[Message] = field(default_factory=lambda: asked("A yes 40"))
    response: str = '{"action":"buy_yes"}'
    prompt_token_ids: list[int] | None = field(default_factory=lambda: [1, 2, 3])
    token_ids: list[int] | None = field(default_factory=lambda: [4, 5])
    logprobs: list[float] | None = field(default_factory=lambda: [-0.1, -0.2])
    sampling: Mapping[str, Any] | None = None


def answers(count: int, **changes: Any) -> list[TrajectoryRecord]:
    """Trajectories `t0`, `t1`, ... of as many agents, who each answer once at the same moment."""
    return [
        record([step(llmCalls=[call(callId=f"call-{n}", **changes)])], trajectory_id=f"t{n}", agent_id=f"agent-{n}")
        for n in range(count)
    ]


def scores(rewards: list[float], **columns: Any) -> pd.DataFrame:
    """Scores of the first step of the trajectories `t0`, `t1`, ..."""
    known = {"trajectory_id": [f"t{n}" for n in range(len(rewards))], "step": 0, "reward": rewards}
    return pd.DataFrame(known | {"state": "final", "outcome": rewards} | columns)


def recorded(count: int, **changes: Any) -> dict[str, Recorded]:
    return {f"call-{n}": Recorded(**changes) for n in range(count)}


def asked(prompt: str) -> list[Message]:
    """The messages of a call with this user prompt; an empty prompt is no message."""
    return [Message("system", "Trade."), *([Message("user", prompt)] if prompt else [])]


def build(records: list[TrajectoryRecord], calls: dict[str, Recorded], frame: pd.DataFrame, **options: Any) -> Dataset:
    return build_dataset(WINDOW, records, calls, frame, MODEL, **options)


def kinds(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(sample.trains_as, sample.skip_reason) for sample in sorted(dataset.samples, key=lambda s: s.sample_id)]


class TestTrainsAs:
    def test_our_answer_with_tokens_trains_by_policy_gradient(self) -> None:
        dataset = build(answers(2), recorded(2), scores([1.0, 0.0]))
        assert kinds(dataset) == [("policy_gradient", None)] * 2
        sample = dataset.samples[0]
        assert (sample.sample_id, sample.policy, sample.policy_step) == ("t0/0/0", "babylon-agent@3", 3)
        assert (sample.prompt_token_ids, sample.token_ids, sample.logprobs) == ([1, 2, 3], [4, 5], [-0.1, -0.2])
        assert (_texts(sample), sample.tokens) == (["Trade.", "A yes 40", '{"action":"buy_yes"}'], 2)
        assert (sample.reward, sample.components) == (1.0, {"outcome": 1.0})

    def test_our_answer_as_text_only_is_recomputed(self) -> None:
        dataset = build(answers(2, response="x" * 41), {}, scores([1.0, 0.0]))
        assert kinds(dataset) == [("recompute", None)] * 2
        assert (dataset.samples[0].token_ids, dataset.samples[0].tokens) == (None, 10)

    @pytest.mark.parametrize(
        "lack",
        [
            {"token_ids": None},
            {"logprobs": None},
            {"prompt_token_ids": []},
            {"logprobs": [-0.1]},
            {"logprobs": [-0.1, math.nan]},
        ],
    )
    def test_a_record_that_is_not_complete_counts_as_text(self, lack: dict[str, Any]) -> None:
        dataset = build(answers(2), recorded(2, **lack), scores([1.0, 0.0]))
        assert kinds(dataset) == [("recompute", None)] * 2
        assert dataset.samples[0].logprobs is None

    @pytest.mark.parametrize(
        "other",
        [
            {"response": '{"action":"buy_no"}'},
            {"messages": [Message("system", "Trade."), Message("user", "B no 20")]},
            {"messages": [Message("user", "Trade."), Message("user", "A yes 40")]},
            {"messages": [Message("user", "A yes 40")]},
        ],
    )
    def test_a_record_of_another_answer_is_left_aside_and_counted(self, other: dict[str, Any]) -> None:
        calls = recorded(3) | {
            "call-1": Recorded(policy="babylon-agent@8", **other),
            "never asked for": Recorded(**other),
        }
        dataset = build(answers(3), calls, scores([1.0, 0.0, 0.5]))
        assert kinds(dataset) == [("policy_gradient", None), ("recompute", None), ("policy_gradient", None)]
        sample = next(sample for sample in dataset.samples if sample.trajectory_id == "t1")
        assert (sample.policy_step, sample.token_ids, sample.logprobs) == (3, None, None)
        assert _texts(sample) == ["Trade.", "A yes 40", '{"action":"buy_yes"}']
        assert dataset.counts["calls_that_differ"] == 1

    def test_of_another_models_answers_the_better_half_is_imitated(self) -> None:
        dataset = build(answers(5, model="gpt-4o"), {}, scores([0.1, 0.9, 0.3, -0.5, 0.8]))
        worse = ("skip", "worse half of its group")
        assert kinds(dataset) == [worse, ("sft", None), worse, worse, ("sft", None)]

    def test_never_more_than_half_of_a_group_is_imitated(self) -> None:
        dataset = build(answers(5, model="gpt-4o"), {}, scores([0.6, 0.7, 0.8, 0.9, -5.0]))
        assert [kind for kind, _ in kinds(dataset)] == ["skip", "skip", "sft", "sft", "skip"]

    def test_what_is_not_better_than_its_group_is_not_imitated(self) -> None:
        dataset = build(answers(4, model="gpt-4o"), {}, scores([1.0, 0.0, 0.0, 0.0]))
        assert [kind for kind, _ in kinds(dataset)] == ["sft", "skip", "skip", "skip"]

    def test_another_models_answers_stay_imitation_even_with_tokens(self) -> None:
        dataset = build(answers(2, model="gpt-4o"), recorded(2, policy=None), scores([1.0, 0.0]))
        assert kinds(dataset)[0] == ("sft", None)

    def test_what_has_no_reward_yet_is_skipped_and_takes_no_part(self) -> None:
        frame = scores([1.0, math.nan, 0.0, math.nan], state=["final", "pending", "final", "unknown"])
        dataset = build(answers(5), recorded(5), frame)
        assert kinds(dataset) == [
            ("policy_gradient", None),
            ("skip", "outcome not yet known"),
            ("policy_gradient", None),
            ("skip", "outcome cannot be known"),
            ("skip", "step has no score"),
        ]
        assert [s.advantage for s in dataset.samples][:3] == pytest.approx([0.5, None, -0.5])

    def test_a_group_without_spread_or_with_one_sample_is_skipped(self) -> None:
        assert kinds(build(answers(2), recorded(2), scores([0.5, 0.5]))) == [("skip", "group has no spread")] * 2
        assert kinds(build(answers(1), recorded(1), scores([0.5]))) == [("skip", "group has one sample")]

    def test_an_answer_of_a_policy_too_far_behind_is_skipped(self) -> None:
        calls = recorded(3) | {"call-2": Recorded(policy="babylon-agent@9")}
        dataset = build(answers(3), calls, scores([1.0, 0.0, 0.5]), head_step=10, max_policy_lag=6)
        assert kinds(dataset) == [("skip", "policy is too old")] * 2 + [("skip", "group has one sample")]
        within = build(answers(3), calls, scores([1.0, 0.0, 0.5]), head_step=10, max_policy_lag=7)
        assert kinds(within) == [("policy_gradient", None)] * 3

    def test_an_answer_that_was_sampled_under_a_grammar_is_skipped(self) -> None:
        free: list[dict[str, Any]] = [{"tool_choice": "auto"}, {"top_p": 1.0}]
        bound: list[dict[str, Any]] = [
            {"response_format": {"type": "json_object"}},
            {"tool_choice": "required"},
            {"tool_choice": "look"},
        ]
        calls = {f"call-{n}": Recorded(sampling=sampling) for n, sampling in enumerate([*free, *bound])}
        dataset = build(answers(5), calls, scores([1.0, 0.0, 0.5, 0.2, 0.1]))
        assert kinds(dataset) == [("policy_gradient", None)] * 2 + [("skip", "sampled under a grammar")] * 3

    def test_an_invalid_action_is_a_sample_with_a_low_reward(self) -> None:
        bad = step(action={"actionType": "INVALID_ACTION", "success": False, "error": "not JSON"})
        records = [record([bad], trajectory_id="t0"), *answers(2)[1:]]
        dataset = build(records, recorded(2), scores([-0.5, 0.2], state=["invalid", "final"]))
        assert kinds(dataset) == [("policy_gradient", None)] * 2
        assert min(s.reward for s in dataset.samples if s.reward is not None) == -0.5


class TestGroups:
    def test_a_refused_attempt_is_an_invalid_answer_and_the_last_one_has_the_reward(self) -> None:
        calls = [call(callId="a", response="I wait"), call(callId="b")]
        two = record([step(llmCalls=calls)], trajectory_id="t0")
        frame = scores([0.8, 0.1], heuristic=[0.5, 0.5])
        built = build_dataset(WINDOW, [two, *answers(2)[1:]], {}, frame, MODEL)
        rewards = {sample.sample_id: sample.reward for sample in built.samples}
        assert rewards == pytest.approx({"t0/0/0": -0.5 + 0.05, "t0/0/1": 0.8, "t1/0/0": 0.1})
        components = {sample.sample_id: sample.components for sample in built.samples}
        assert components["t0/0/0"] == {"outcome": -0.5, "heuristic": 0.5}

    def test_what_the_environment_refused_is_never_imitated(self) -> None:
        calls = [call(callId=None, model="gpt", response="I wait"), call(callId=None, model="gpt")]
        losing = [record([step(llmCalls=calls)], trajectory_id=f"t{n}", agent_id=f"agent-{n}") for n in range(2)]
        built = build_dataset(WINDOW, losing, {}, scores([-1.0, -0.9], heuristic=[0.0, 0.0]), MODEL)
        fates = {sample.sample_id: sample.skip_reason for sample in built.samples}
        assert fates["t0/0/0"] == fates["t1/0/0"] == "the environment refused it"

    def test_moments_are_compared_apart(self) -> None:
        early, late = step(0), step(1, environmentState={"timestamp": START_MS + 600_000})
        records = [record([early, late], trajectory_id=f"t{n}", agent_id=f"a{n}") for n in range(2)]
        frame = pd.DataFrame(
            {"trajectory_id": ["t0", "t0", "t1", "t1"], "step": [0, 1, 0, 1], "reward": [1.0, 0.0, 0.0, 4.0]}
        )
        dataset = build(records, {}, frame)
        assert dataset.counts["groups"] == dataset.counts["trainable_groups"] == 2
        advantages = {s.sample_id: round(s.advantage or 0, 3) for s in dataset.samples}
        assert advantages == {"t0/0/0": 0.5, "t1/0/0": -0.5, "t0/1/0": -2, "t1/1/0": 2}

    def test_ours_and_other_models_are_compared_apart(self) -> None:
        records = [*answers(2), *answers(4, model="gpt-4o")[2:]]
        dataset = build(records, recorded(2), scores([0.0, 0.1, 5.0, 6.0]))
        by_id = {s.sample_id: s for s in dataset.samples}
        assert by_id["t1/0/0"].advantage == pytest.approx(0.05)
        assert by_id["t3/0/0"].trains_as == "sft"

    def test_counts(self) -> None:
        records = [*answers(2), *answers(4, model="gpt-4o", response="x" * 40)[2:]]
        counts = build(records, recorded(2), scores([0.0, 0.1, 5.0, 6.0])).counts
        assert counts == {
            **dict.fromkeys(COUNTS, 0),
            "groups": 1,
            "sft": 1,
            "policy_gradient": 2,
            "recompute": 0,
            "samples": 4,
            "skip": 1,
            "skip: worse half of its group": 1,
            "trainable_groups": 1,
            "trainable_samples": 3,
            "trainable_tokens": 14,
        }

    def test_nothing_makes_an_empty_dataset(self) -> None:
        dataset = build([], {}, scores([]))
        assert (dataset.samples, dataset.counts["trainable_tokens"]) == ([], 0)
        assert decode(encode(dataset)) == dataset


class TestIdentity:
    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_the_id_and_the_bytes_are_those_of_the_whole(self, count: int) -> None:
        dataset = build(answers(count), recorded(count), scores([float(n) for n in range(count)]))
        assert dataset.id == dataset_id(WINDOW, dataset.samples)
        assert decode(encode(dataset)) == dataset
        assert encode(decode(encode(dataset))) == encode(dataset)

    def test_a_dataset_of_the_first_form_is_still_read(self) -> None:
        dataset = build(answers(3), recorded(3), scores([1.0, 0.5, 0.0]))
        first = msgspec.structs.replace(dataset, id=content_id([WINDOW, dataset.samples]))
        assert encode(first) == canonical_json(first)
        assert decode(canonical_json(first)) == first
        with pytest.raises(CorruptLedger):
            decode(canonical_json(msgspec.structs.replace(first, id=dataset.id)))

    def test_the_order_of_rows_does_not_matter(self) -> None:
        records, frame = answers(12), scores([n / 7 for n in range(12)])
        ids = set()
        for seed in range(3):
            rng = random.Random(seed)
            shuffled = rng.sample(records, len(records))
            ids.add(build(shuffled, recorded(12), frame.sample(frac=1, random_state=seed)).id)
        assert len(ids) == 1

    def test_any_change_of_content_changes_the_id(self) -> None:
        variants = [
            build(answers(2), recorded(2), scores([1.0, 0.0])),
            build(answers(2), recorded(2), scores([1.0, 0.1])),
            build(answers(2), recorded(2), scores([1.0, 0.0], outcome=[0.9, 0.0])),
            build(answers(2), recorded(2, token_ids=[4, 6]), scores([1.0, 0.0])),
            build(answers(2), recorded(2, prompt_token_ids=[1, 2]), scores([1.0, 0.0])),
            build(answers(2), recorded(2, logprobs=[-0.1, -0.2000001]), scores([1.0, 0.0])),
            build(answers(2, response="other"), recorded(2, response="other"), scores([1.0, 0.0])),
            build(answers(2, userPrompt="B"), recorded(2, messages=asked("B")), scores([1.0, 0.0])),
            build(answers(2), recorded(2, policy="babylon-agent@4"), scores([1.0, 0.0])),
            build(answers(2), {}, scores([1.0, 0.0])),
            build(answers(2), recorded(2), scores([1.0, 0.0]), moment_seconds=7),
            build(answers(3), recorded(3), scores([1.0, 0.0, math.nan])),
            build_dataset("2026-10-01T01:00", answers(2), recorded(2), scores([1.0, 0.0]), MODEL),
        ]
        assert len({dataset.id for dataset in variants}) == len(variants)

    def test_content_that_is_not_what_the_id_names_is_refused(self) -> None:
        dataset = build(answers(2), recorded(2), scores([1.0, 0.0]))
        tampered = msgspec.structs.replace(dataset, window="2026-10-01T01:00")
        with pytest.raises(CorruptLedger):
            decode(encode(tampered))
        with pytest.raises(CorruptLedger):
            decode(encode(dataset)[:-9])


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=30)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(FLOATS, TEXT, TEXT, st.lists(FLOATS, min_size=1, max_size=5)), min_size=2, max_size=6))
def test_a_dataset_comes_back_exactly(rows: list[tuple[float, str, str, list[float]]]) -> None:
    records, calls = [], {}
    for n, (_, prompt, said, lp) in enumerate(rows):
        said_so = call(callId=f"call-{n}", userPrompt=prompt, response=said)
        records.append(record([step(llmCalls=[said_so])], trajectory_id=f"t{n}"))
        calls[f"call-{n}"] = Recorded(messages=asked(prompt), response=said, token_ids=[7] * len(lp), logprobs=lp)
    dataset = build(records, calls, scores([reward / 1e300 for reward, *_ in rows]))
    assert dataset.counts["calls_that_differ"] == 0
    assert [s.logprobs for s in dataset.samples] == [lp for *_, lp in rows]
    assert decode(encode(dataset)) == dataset
    assert encode(decode(encode(dataset))) == encode(dataset)


HINDSIGHT = "9f3c-hindsight"
PLACES = [
    ("action", "parameters", "pnlChange"),
    ("action", "parameters", "finalPnL"),
    ("action", "parameters", "initialPnL"),
    ("action", "result"),
    ("action", "correctness"),
    ("action", "reasoning"),
    ("reward",),
    ("metadata", "gameKnowledge"),
    ("gameKnowledge",),
    ("observation",),
    ("environmentState", "finalPnL"),
    ("environmentState", "gameKnowledge"),
    ("llmCalls", 0, "result"),
    ("llmCalls", 0, "gameKnowledge"),
    ("providerAccesses",),
]


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.sets(st.sampled_from(PLACES), min_size=1), st.booleans(), st.booleans(), TEXT)
def test_no_result_reaches_a_sample(places: set[tuple[Any, ...]], exact: bool, as_list: bool, text: str) -> None:
    """Results are planted wherever the game writes them; no sample holds one, in its texts or anywhere else."""
    planted = {"trueProbabilities": {"m1": HINDSIGHT}}
    records = []
    for n in range(3):
        row = step(llmCalls=[call(callId=f"call-{n}", userPrompt=f"see {text}", response=text)], metadata={})
        for path in places:
            target: Any = row
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = [planted] if as_list else planted
        records.append(record([row], trajectory_id=f"t{n}"))
    calls = recorded(3, messages=asked(f"see {text}"), response=text) if exact else {}
    dataset = build(records, calls, scores([1.0, 0.0, 0.5]))
    assert len(dataset.samples) == 3
    assert HINDSIGHT.encode() not in encode(dataset)
    for sample in dataset.samples:
        assert (sample.logprobs is not None) == exact
        assert _texts(sample) == ["Trade.", f"see {text}", text]


def _texts(sample: Sample) -> list[str]:
    return [*(message.content for message in sample.messages), sample.response]


def test_a_sample_has_no_field_for_a_result() -> None:
    names = set(json.loads(canonical_json(build(answers(2), recorded(2), scores([1.0, 0.0])).samples[0])))
    assert not {
        name for name in names if any(word in name for word in ("pnl", "result", "worth", "knowledge", "correct"))
    }
