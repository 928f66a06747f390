"""A verdict of the gate as a table: each rule, what it came to, the bound that it was held to, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: What is allowed, by rule, with the names of `domain.gates.Rules` in it.
_BOUNDS = {
    "finite": "loss and gradient are finite",
    "window": "trained on some tokens, and not thin",
    "hygiene": "at most {quarantined:.0%} corrupt",
    "rewards": "at least {agreement:+.2f}",
    "benchmark": "not worse by more than {margin:g}, with {confidence:.0%} confidence",
    "market": "not worse by more than {margin:g}, with {confidence:.0%} confidence",
    "best": "not worse by more than {decline:g}, with {confidence:.0%} confidence",
    "valid": "not lower by more than {valid_drop:g}, with {confidence:.0%} confidence",
    "best valid": "not lower by more than {valid_drop:g}, with {confidence:.0%} confidence",
    "recorded": "not worse by more than {margin:g}, with {confidence:.0%} confidence",
    "recorded valid": "at least {recorded_valid:.0%}, and not lower by more than {valid_drop:g}",
    "off_policy": "not worse by more than {off_policy_margin:g} nats, with {confidence:.0%} confidence",
}


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
    rows = [
        VerdictRow(
            rule=finding["rule"],
            finding=finding["words"],
            bound=_bound(finding["rule"], verdict.get("rules", {})),
            holds=bool(finding["holds"]),
            evidence=bool(finding.get("evidence", True)),
        )
        for finding in verdict.get("findings", ())
    ]
    return sorted(rows, key=lambda row: (row.holds, row.evidence))


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
    try:
        return _BOUNDS.get(rule, "").format_map(rules)
    except (KeyError, ValueError, TypeError):
        return ""


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
