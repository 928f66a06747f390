"""Asking a judge with the real ART function and the real litellm client: retries, limits, cost, and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.llm_judge import Candidate, Comparison, JudgeAnswer
from babylon_assets.domain.trajectories import Message
from tests.judge_service import KEY, JudgeService, judge_service

prepare_libraries(Settings())
PROMPT = [Message("system", "Trade."), Message("user", "A yes 40")]
ANSWERS = ("x" * 10, "x" * 50, "x" * 90)


@pytest.fixture
def service() -> Iterator[JudgeService]:
    with judge_service() as running:
        yield running


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babylon_assets.evaluation.llm_judge.FIRST_WAIT_SECONDS", 0.01)


def comparison(name: str = "c1", answers: tuple[str, ...] = ANSWERS) -> Comparison:
    members = [Candidate(f"t{n}/0/0", f"t{n}", f"a{n}", 0, PROMPT, answer) for n, answer in enumerate(answers)]
    return Comparison(name, "2026-10-01T00:00", "g", tuple(members))


def ask(service: JudgeService, *asked: Comparison, attempts: int = 9, **changes: Any) -> dict[str, JudgeAnswer]:
    from babylon_assets.evaluation import llm_judge

    settings = Settings(**{"ruler_model": "openai/a-judge", "ruler_url": service.url, "ruler_api_key": KEY, **changes})
    kept: dict[str, JudgeAnswer] = {}
    llm_judge.judge(settings.judge, [(each, attempts) for each in asked], lambda one, said: kept.update({one.id: said}))
    return kept


def test_a_group_is_scored_with_reasons_tokens_and_cost(service: JudgeService) -> None:
    [judgment] = ask(service, comparison(), ruler_usd_per_million_tokens=10.0).values()
    assert judgment.scores == [0.1, 0.5, 0.9]
    assert judgment.explanations is not None
    assert all("characters" in said for said in judgment.explanations)
    assert (judgment.error, judgment.attempts) == (None, 1)
    assert (judgment.prompt_tokens, judgment.completion_tokens) == (100, 20)
    assert judgment.cost_usd == pytest.approx(120 * 10 / 1e6)


def test_the_judge_sees_prompts_and_answers_and_the_form_of_its_own(service: JudgeService) -> None:
    ask(service, comparison(), ruler_rubric="Be strict.")
    [body] = service.bodies
    assert "Be strict." in body["messages"][0]["content"]
    shown = body["messages"][1]["content"]
    assert shown.count("A yes 40") == 1
    assert all(answer in shown for answer in ANSWERS)
    assert body["response_format"]["type"] == "json_schema"


def test_a_judge_without_schemas_is_asked_in_words(service: JudgeService) -> None:
    [judgment] = ask(service, comparison(), ruler_json_schema=False).values()
    assert judgment.scores == [0.1, 0.5, 0.9]
    [body] = service.bodies
    assert "response_format" not in body
    assert '"trajectory_id": "1"' in body["messages"][0]["content"]


def test_scores_in_another_order_go_to_their_own_answers(service: JudgeService) -> None:
    service.fail("shuffled")
    assert ask(service, comparison())["c1"].scores == [0.1, 0.5, 0.9]


@pytest.mark.parametrize("fault", ["500", "429", "garbage", "missing", "high"])
def test_what_may_pass_is_tried_again_and_what_was_paid_counts(service: JudgeService, fault: str) -> None:
    service.fail(fault, 2)
    judgment = ask(service, comparison())["c1"]
    assert (judgment.scores, judgment.attempts) == ([0.1, 0.5, 0.9], 3)
    assert judgment.prompt_tokens == (100 if fault.isdecimal() else 300)
    assert len(service.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("500", "InternalServerError (HTTP 500)"),
        ("garbage", "the answer is not the JSON that was asked for"),
        ("missing", "Expected 3 scores, but got 2"),
        ("high", "a score of the answer is not between 0 and 1"),
    ],
)
def test_what_goes_on_failing_has_no_scores_and_says_why(service: JudgeService, fault: str, told: str) -> None:
    service.fail(fault, 99)
    judgment = ask(service, comparison())["c1"]
    assert (judgment.scores, judgment.attempts, judgment.error) == (None, 3, told)
    assert len(service.bodies) == 3


def test_no_more_is_asked_than_is_left(service: JudgeService) -> None:
    service.fail("500", 99)
    assert ask(service, comparison(), attempts=2)["c1"].attempts == 2
    assert len(service.bodies) == 2


def test_a_request_that_is_refused_is_not_sent_again(service: JudgeService) -> None:
    service.fail("400")
    judgment = ask(service, comparison())["c1"]
    assert (judgment.attempts, judgment.error) == (1, "BadRequestError (HTTP 400)")


def test_a_judge_that_is_too_slow_is_not_waited_for(service: JudgeService) -> None:
    service.fail("slow")
    judgment = ask(service, comparison(), attempts=1, ruler_timeout_seconds=1)["c1"]
    assert judgment.scores is None
    assert judgment.error in ("no answer in time", "Timeout (HTTP 408)")


def test_one_group_that_fails_costs_the_others_nothing(service: JudgeService) -> None:
    service.fail("400")
    kept = ask(service, *(comparison(f"c{n}") for n in range(12)))
    assert sorted(kept) == sorted(f"c{n}" for n in range(12))
    assert sum(judgment.scores is None for judgment in kept.values()) == 1


def test_a_wrong_key_stops_with_what_to_do_and_shows_nowhere(
    service: JudgeService, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PermanentError, match="refused the key; correct RULER_API_KEY") as refused:
        ask(service, comparison(), ruler_api_key="sk-wrong-hunter3")
    assert refused.value.__cause__ is None
    printed = capfd.readouterr()
    assert "hunter3" not in printed.out + printed.err + caplog.text + repr(refused.value)


def test_a_model_that_is_not_there_stops_with_what_to_do(service: JudgeService) -> None:
    service.fail("404")
    with pytest.raises(PermanentError, match="no model openai/a-judge; correct RULER_MODEL"):
        ask(service, comparison())


def test_a_server_of_ours_never_gets_another_providers_key(
    service: JudgeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(PermanentError, match="refused the key"):
        ask(service, comparison(), ruler_api_key=None)
    assert service.bodies == []
