"""Recorded prompts: which are asked, how two policies' answers are compared, and what the gate makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from babylon_assets.domain.gates import Finding, may_promote
from babylon_assets.domain.prompt_evaluation import (
    PromptAnswer,
    PromptComparison,
    PromptPlace,
    choose_prompts,
    clustered,
    compare_answers,
)
from tests.domain.test_gates import challenger

W = "2026-11-05T14:00"


def place(agent: str, number: int, *, held_out: bool = True) -> PromptPlace:
    return PromptPlace(
        dataset_id="d",
        window=W,
        trajectory_id=f"{agent}-{number}",
        agent_id=agent,
        step=0,
        call=0,
        held_out=held_out,
        recorded_worth=None,
    )


def answers(*rewards: float | None, agents: int = 8, valid: bool = True) -> dict[str, PromptAnswer]:
    return {str(n): PromptAnswer(f"a{n % agents}", W, reward, valid) for n, reward in enumerate(rewards)}


class TestTheChoice:
    def test_held_out_agents_come_first_and_every_agent_in_turn(self) -> None:
        places = [place("many", n) for n in range(20)] + [place("few", 0), place("seen", 0, held_out=False)]
        chosen = choose_prompts(places, 3)
        assert {p.agent_id for p in chosen[:2]} == {"many", "few"}
        assert chosen[2].agent_id == "many"
        assert [p.agent_id for p in choose_prompts(places, 99)][-1] == "seen"

    def test_it_does_not_depend_on_the_order_of_the_rows(self) -> None:
        places = [place(f"a{n % 7}", n) for n in range(40)]
        assert choose_prompts(places[::-1], 12) == choose_prompts(places, 12)
        assert choose_prompts(places, 12, seed=1) != choose_prompts(places, 12)


class TestTheInterval:
    def test_of_independent_values_is_the_bootstrap_of_the_mean(self) -> None:
        values = np.random.default_rng(0).normal(0.3, 1.0, 400)
        interval = clustered(values.tolist(), [str(n) for n in range(400)])
        assert interval is not None
        assert interval.value == pytest.approx(values.mean())
        half = 1.96 * values.std() / 20
        assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)

    def test_an_agent_that_was_asked_often_counts_as_one_agent(self) -> None:
        values = [1.0] * 50 + [0.0, 0.1, -0.1, 0.05, -0.05]
        alone = clustered(values, [str(n) for n in range(55)])
        together = clustered(values, ["busy"] * 50 + list("bcdef"))
        assert alone is not None
        assert together is not None
        assert together.low < 0.1 < 0.8 < alone.low

    def test_without_values_there_is_none(self) -> None:
        assert clustered([], []) is None


class TestTheComparison:
    def test_is_over_the_prompts_that_both_were_asked_and_the_record_values(self) -> None:
        ours, theirs = answers(0.5, None, 0.1, 0.9), answers(0.1, 0.2, None)
        comparison = compare_answers(ours, theirs)
        assert (comparison.asked, comparison.prompts, comparison.agents) == (3, 1, 1)
        assert comparison.reward is not None
        assert comparison.reward.value == pytest.approx(0.4)

    def test_where_there_are_few_agents_their_windows_count_one_by_one(self) -> None:
        ours = {str(n): PromptAnswer("a", f"w{n}", float(n % 2), True) for n in range(40)}
        theirs = {name: answer._replace(reward=0.0) for name, answer in ours.items()}
        reward = compare_answers(ours, theirs).reward
        assert reward is not None
        assert 0.3 < reward.low < 0.5 < reward.high < 0.7


def recorded(*findings: Finding) -> list[tuple[str, bool]]:
    return [(finding.rule, finding.holds) for finding in findings if finding.rule.startswith("recorded")]


def judged(comparison: PromptComparison) -> list[tuple[str, bool]]:
    asks = replace(challenger(None), recorded=comparison)
    return recorded(*may_promote(asks, None).findings)


BETTER = compare_answers(answers(*[0.3] * 32), answers(*[0.1] * 32))


class TestTheGate:
    def test_one_that_is_better_passes_and_one_that_is_worse_does_not(self) -> None:
        assert judged(BETTER) == [("recorded valid", True), ("recorded", True)]
        worse = compare_answers(answers(*[0.1] * 32), answers(*[0.3] * 32))
        assert judged(worse) == [("recorded valid", True), ("recorded", False)]

    def test_few_prompts_or_agents_are_no_evidence_and_are_said_to_be_few(self) -> None:
        few = compare_answers(answers(*[-1.0] * 23), answers(*[1.0] * 23))
        assert judged(few) == [("recorded", True)]
        one = compare_answers(answers(*[-1.0] * 32, agents=2), answers(*[1.0] * 32, agents=2))
        verdict = may_promote(replace(challenger(None), recorded=one), None)
        [words] = [finding.words for finding in verdict.findings if finding.rule == "recorded"]
        assert "2 agents" in words
        assert "there is no evidence" in words

    def test_one_that_cannot_act_there_is_refused_however_little_worse_it_is(self) -> None:
        noise = answers(*[None] * 32, valid=False)
        assert judged(compare_answers(noise, noise)) == [("recorded valid", False), ("recorded", True)]

    def test_one_whose_valid_actions_fell_is_refused(self) -> None:
        ours = {name: answer._replace(valid=int(name) % 2 == 0) for name, answer in answers(*[0.3] * 64).items()}
        assert judged(compare_answers(ours, answers(*[0.3] * 64)))[0] == ("recorded valid", False)

    def test_another_environments_market_says_nothing_there(self) -> None:
        rules = [finding.rule for finding in may_promote(replace(challenger(None), recorded=BETTER), None).findings]
        assert "market" not in rules
