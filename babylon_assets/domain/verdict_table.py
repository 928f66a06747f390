"""A verdict of the gate as a table: each rule, what it came to, the bound that it was held to, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_WHOLE = "rejected only if the whole {confidence:.0%} interval is below"
#: What is allowed, by rule, with the names of `domain.gates.Rules` in it; a loss is written as what it is below 0.
_BOUNDS = {
    "finite": "loss and gradient are finite",
    "window": "trained on some tokens, and not thin",
    "hygiene": "at most {quarantined:.0%} corrupt",
    "rewards": "at least {agreement:+.2f}",
    "benchmark": f"{_WHOLE} {{margin:g}}",
    "market": f"{_WHOLE} {{margin:g}}",
    "best": f"{_WHOLE} {{decline:g}}",
    "valid": f"{_WHOLE} {{valid_drop:g}}",
    "best valid": f"{_WHOLE} {{valid_drop:g}}",
    "recorded": f"{_WHOLE} {{margin:g}}",
    "recorded valid": f"at least {{recorded_valid:.0%}}, and {_WHOLE} {{valid_drop:g}}",
    "preference": f"{_WHOLE} {{off_policy_margin:g}} nats",
}

_LOSSES = ("margin", "decline", "valid_drop", "off_policy_margin")
#: Rules by the names that older verdicts keep.
_RENAMED = {"off_policy": "preference"}


class VerdictRow(NamedTuple):
    """One rule of a verdict."""

    rule: str
    finding: str
    bound: str
    holds: bool
    evidence: bool = True

    @property
    def answer(self) -> str:
        """Whether it holds, in a word or two: a rule that was applied to nothing neither holds nor does not."""
        return ("yes" if self.holds else "no") if self.evidence else "no evidence"


def verdict_rows(verdict: Mapping[str, Any]) -> list[VerdictRow]:
    """The rows of a verdict as it is kept (`GateVerdict.record`): the broken ones first, then those without evidence.

    A rule that is no more, or whose bound was not kept, has none.
    """
    rows = [_row(finding, verdict.get("rules", {})) for finding in verdict.get("findings", ())]
    return sorted(rows, key=lambda row: (row.holds, row.evidence))


def _row(finding: Mapping[str, Any], rules: Mapping[str, Any]) -> VerdictRow:
    rule = _RENAMED.get(finding["rule"], finding["rule"])
    return VerdictRow(
        rule=rule,
        finding=finding["words"],
        bound=_bound(rule, rules),
        holds=bool(finding["holds"]),
        evidence=bool(finding.get("evidence", True)),
    )


def verdict_cells(verdict: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of a verdict in words, by the headings that every table of it has."""
    return [
        {
            "rule": row.rule.replace("_", " "),
            "holds": row.answer,
            "what it came to": row.finding,
            "bound": row.bound,
        }
        for row in verdict_rows(verdict)
    ]


def _bound(rule: str, rules: Mapping[str, Any]) -> str:
    losses = {name: 0 - rules[name] for name in _LOSSES if name in rules}
    try:
        return _BOUNDS.get(rule, "").format_map({**rules, **losses})
    except (KeyError, ValueError, TypeError):
        return ""


def explain_absent(verdict: Mapping[str, Any]) -> str:
    """Why a verdict lacks rules that others have, in a sentence or two; empty where it lacks none."""
    rules = {row.rule for row in verdict_rows(verdict)}
    reasons = []
    if "market" in rules and "best" not in rules:
        reasons.append("best and best valid did not apply: the served policy was the best so far")
    if "window" in rules and "rewards" not in rules:
        reasons.append("rewards did not apply: too few actions of the window have a known worth")
    return "; ".join(reasons)


def explain_decision(why: str, verdict: Mapping[str, Any] | None) -> str:
    """A decision in one sentence: how many rules hold, for how many there is no evidence, what the broken ones came to.

    Args:
        why: what is said where there is no verdict, as of a person's decision.
    """
    rows = verdict_rows(verdict or {})
    if not rows:
        return why
    broken = [row.finding for row in rows if not row.holds]
    blank = sum(not row.evidence for row in rows)
    unsaid = f"{blank} {'has' if blank == 1 else 'have'} no evidence" if blank else ""
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        counted = ", ".join(filter(None, [f"{len(broken)} of {len(rows)} rules {verb} not hold", unsaid]))
        return f"{counted}: {'; '.join(broken)}"
    return f"{len(rows) - blank} of {len(rows)} rules hold, {unsaid}" if blank else f"all {len(rows)} rules hold"
