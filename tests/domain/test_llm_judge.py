"""What a judge is asked, and what its verdicts come to."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from babylon_assets.domain import llm_judge
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.llm_judge import Comparison, JudgeAnswer
from babylon_assets.domain.trajectories import TrajectoryRecord
from tests.domain.rows import START_MS, WINDOW, call, record, step


def episode(number: int, answer: str = "hold", steps: int = 2) -> TrajectoryRecord:
    """An episode of an agent that answers the same at every minute."""
    rows = [step(n, llmCalls=[call(callId=f"c{number}-{n}", response=answer)]) for n in range(steps)]
    return record(rows, trajectory_id=f"t{number}", agent_id=f"a{number}")


def asked(*records: TrajectoryRecord, **changes: Any) -> list[Comparison]:
    options: dict[str, Any] = {"model": "openai/judge", "rubric": "r", "moment_seconds": 30, **changes}
    return llm_judge.comparisons(WINDOW, records, {}, **options)


def verdict(comparison: Comparison, *scores: float) -> JudgeAnswer:
    return JudgeAnswer(scores, [f"said {score}" for score in scores], None, 1, 10, 2, 0.5)


def test_the_samples_of_a_moment_are_compared_as_the_policy_saw_them() -> None:
    first, second = asked(episode(1, "buy"), episode(0), episode(2))
    assert [each.sample_id for each in first.candidates] == ["t0/0/0", "t1/0/0", "t2/0/0"]
    assert [each.response for each in first.candidates] == ["hold", "buy", "hold"]
    assert [message.role for message in first.candidates[0].messages] == ["system", "user"]
    assert first.group == f"{WINDOW}/{START_MS // 30_000}"
    assert second.group != first.group


def test_nothing_is_asked_about_one_alone() -> None:
    assert asked(episode(0)) == []
    assert len(asked(episode(0), group_mode="agent")) == 1


def test_the_id_is_that_of_judge_rubric_and_content() -> None:
    ids = {asked(episode(0), episode(1))[0].id, asked(episode(1), episode(0))[0].id}
    assert len(ids) == 1
    others = [
        asked(episode(0), episode(1), model="openai/other"),
        asked(episode(0), episode(1), rubric="s"),
        asked(episode(0), episode(1, "buy")),
    ]
    assert len(ids | {each[0].id for each in others}) == 4


def test_a_large_group_is_judged_in_parts_of_nearly_the_same_size() -> None:
    parts = asked(*(episode(n, steps=1) for n in range(37)), group_size=16)
    assert sorted(len(part.candidates) for part in parts) == [12, 12, 13]
    assert len({each.sample_id for part in parts for each in part.candidates}) == 37
    assert len({part.group for part in parts}) == 1


def test_steps_get_their_scores_and_what_was_not_judged_is_missing() -> None:
    first, second = asked(episode(0), episode(1))
    steps = steps_frame([episode(1), episode(0), episode(5)])
    failed = JudgeAnswer(None, None, "HTTP 500", 3)
    scorer, verdicts = llm_judge.judge_scorer(
        steps, [first, second], {first.id: verdict(first, 0.25, 1.0), second.id: failed}, "1-x"
    )
    scores = scorer.score(steps).tolist()
    assert (scores[0], scores[2]) == (1.0, 0.25)
    assert all(math.isnan(scores[n]) for n in (1, 3, 4, 5))
    assert (scorer.name, scorer.version) == ("ruler", "1-x")
    assert [(each.trajectory_id, each.score, each.steps) for each in verdicts] == [
        ("t0", 0.25, {0: 0.25}),
        ("t1", 1.0, {0: 1.0}),
    ]
    assert verdicts[1].reasoning == "step 0: said 1.0"


def test_two_calls_of_a_step_share_its_score() -> None:
    twice = [step(llmCalls=[call(callId=f"x{n}", response=f"r{n}") for n in range(2)])]
    [comparison] = asked(record(twice, trajectory_id="t0"), episode(1, steps=1))
    scorer, _ = llm_judge.judge_scorer(
        steps_frame([record(twice, trajectory_id="t0")]),
        [comparison],
        {comparison.id: verdict(comparison, 0.0, 1.0, 0.3)},
        "",
    )
    assert scorer.values.tolist() == [0.5]


def test_an_answer_in_any_order_is_put_in_that_of_the_candidates() -> None:
    [comparison] = asked(episode(0, steps=1), episode(1, steps=1))
    assert llm_judge.in_order(comparison, [("2", 0.9, "good"), (" 1", 0.2, "bad")]) == ([0.2, 0.9], ["bad", "good"])


@pytest.mark.parametrize(
    "answered",
    [
        [("1", 0.5, "")],
        [("1", 0.5, ""), ("1", 0.5, "")],
        [("1", 0.5, ""), ("3", 0.5, "")],
        [("1", 0.5, ""), ("2", -0.1, "")],
        [("1", 0.5, ""), ("2", math.nan, "")],
    ],
)
def test_an_answer_that_does_not_score_each_once_is_refused(answered: list[tuple[str, float, str]]) -> None:
    [comparison] = asked(episode(0, steps=1), episode(1, steps=1))
    with pytest.raises(ValueError, match="score"):
        llm_judge.in_order(comparison, answered)


def test_the_cost_is_not_known_when_that_of_one_is_not() -> None:
    priced, free = JudgeAnswer([1.0], [""], None, 2, 10, 5, 0.25), JudgeAnswer(None, None, "x", 3)
    assert llm_judge.spent([priced, priced]) == {"judge_requests": 4, "judge_tokens": 30, "judge_cost_usd": 0.5}
    assert llm_judge.spent([priced, free]) == {"judge_requests": 5, "judge_tokens": 15, "judge_cost_usd": None}
    assert llm_judge.spent([])["judge_cost_usd"] is None


def test_no_result_of_an_action_is_shown_to_the_judge() -> None:
    action = step(0)["action"]
    action["parameters"] |= {"pnlChange": 12345.6, "finalPnL": 65432.1}
    rows = [step(0, action=action, reward=77.7)]
    [comparison] = asked(record(rows, trajectory_id="t0"), record(rows, trajectory_id="t1"))
    shown = msgspec.json.encode([(each.messages, each.response) for each in comparison.candidates])
    assert all(number not in shown for number in (b"12345.6", b"65432.1", b"77.7"))
