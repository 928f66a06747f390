"""A verdict as a table: every rule that the gate has, with its bound in words."""

from __future__ import annotations

import json

from babylon_assets.domain.evaluations import Interval
from babylon_assets.domain.gates import GateVerdict, Rules, may_promote
from babylon_assets.domain.prompt_evaluation import PromptComparison
from babylon_assets.domain.verdict_table import _BOUNDS, explain_absent, explain_decision, verdict_cells, verdict_rows
from tests.domain.test_gates import CHAMPION, challenger, measured


def verdict() -> GateVerdict:
    """Every rule at once, some of which do not hold."""
    worse = measured("agent@2", -0.2)
    off_policy = Interval(-0.5, -0.6, -0.4)
    asked = challenger(worse, agreement=-0.5, off_policy=off_policy, off_policy_groups=20, numbers={"loss": None})
    return may_promote(asked, CHAMPION, measured("agent@0", seed=3), Rules(margin=0.0125))


def test_every_rule_has_a_row_with_its_bound_and_the_broken_ones_come_first() -> None:
    rows = verdict_rows(json.loads(json.dumps(verdict().record())))
    assert [row.holds for row in rows] == sorted(row.holds for row in rows)
    assert {row.rule: row.holds for row in rows if not row.holds} == dict.fromkeys(
        ("finite", "rewards", "market", "best", "preference"), False
    )
    assert all(row.finding and row.bound for row in rows)
    sentence = explain_decision("why", verdict().record())
    assert sentence.startswith(f"5 of {len(rows)} rules do not hold: loss of its training was not finite; ")
    [market] = [row for row in rows if row.rule == "market"]
    assert market.bound == "rejected only if the whole 95% interval is below -0.0125"
    assert "worse with confidence" in market.finding


def test_the_rules_on_recorded_prompts_have_bounds() -> None:
    recorded = PromptComparison(
        reward=Interval(-0.5, -0.6, -0.4), valid=None, valid_share=0.05, asked=40, prompts=40, agents=8
    )
    rows = verdict_rows(may_promote(challenger(None, recorded=recorded), None).record())
    assert {"recorded", "recorded valid"} <= {row.rule for row in rows}
    assert all(row.bound for row in rows)


def test_no_bound_is_of_a_rule_that_is_not_there() -> None:
    assert set(_BOUNDS) <= {
        *("finite", "window", "hygiene", "rewards", "market", "best", "valid", "best valid", "recorded"),
        "recorded valid",
        "benchmark",
        "preference",
    }


def test_a_verdict_of_an_older_gate_has_its_rows() -> None:
    old = {"passed": True, "findings": [{"rule": "replay", "holds": True, "words": "it prefers better"}]}
    [row] = verdict_rows(old)
    assert (row.rule, row.bound, row.holds) == ("replay", "", True)
    renamed = {"findings": [{"rule": "off_policy", "holds": True, "words": "it prefers better"}]}
    assert [row.rule for row in verdict_rows(renamed)] == ["preference"]
    assert explain_decision("it prefers better", old) == "all 1 rules hold"


def test_a_rule_that_did_not_apply_is_named_with_the_reason() -> None:
    assert explain_absent(verdict().record()) == explain_absent({}) == ""
    alone = may_promote(challenger(measured("agent@2")), CHAMPION, CHAMPION).record()
    assert explain_absent(alone) == (
        "best and best valid did not apply: the served policy was the best so far; "
        "rewards did not apply: too few actions of the window have a known worth"
    )


def test_a_persons_decision_is_explained_by_the_person() -> None:
    assert explain_decision("I know better", None) == explain_decision("I know better", {}) == "I know better"


def test_a_rule_without_evidence_neither_holds_nor_does_not() -> None:
    kept = json.loads(json.dumps(may_promote(challenger(None, unmeasured="no policy is served"), None).record()))
    rows = verdict_rows(kept)
    assert kept["passed"] is True
    assert [(row.rule, row.answer) for row in rows if row.answer != "yes"] == [
        ("benchmark", "no evidence"),
        ("preference", "no evidence"),
    ]
    assert [cells["holds"] for cells in verdict_cells(kept)] == ["no evidence"] * 2 + ["yes"] * (len(rows) - 2)
    assert explain_decision("why", kept) == f"{len(rows) - 2} of {len(rows)} rules hold, 2 have no evidence"
    refused = may_promote(challenger(None, numbers={"loss": None}), None).record()
    assert explain_decision("why", refused).startswith("1 of 5 rules does not hold, 2 have no evidence: loss of its")


def test_the_rule_on_the_window_says_what_was_trained_on() -> None:
    [window] = [row for row in verdict_rows(may_promote(challenger(None), None).record()) if row.rule == "window"]
    assert (window.finding, window.bound) == (
        "it was trained on 5,000 tokens of its window",
        "trained on some tokens, and not thin",
    )
