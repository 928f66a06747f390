"""The gate: whether a checkpoint may be served and trained from, with every reason in words.

The gate is made so that small steps pass: it refuses what is worse with confidence, not what is not yet proven better.
A decline in steps that are each too small to be told from noise is caught by the comparison with the best so far.
Measuring is the business of `evaluation`, carrying a verdict out that of `store`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.evaluations import Interval, paired
from babylon_assets.domain.prompt_evaluation import PromptComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the gate asks; every bound is a loss that is still allowed.

    Attributes:
        confidence: of the intervals; a checkpoint is worse when the whole interval of its difference is below a bound.
        margin: mean reward a board that it may lose against the champion.
        decline: the same against the best that was ever promoted.
        valid_drop: share of valid actions that it may lose against the champion, and against the best.
        off_policy_margin: nats by which its preference for better answers of the held-out agents may fall.
        off_policy_groups: least number of groups for that to count.
        recorded_prompts, recorded_agents: least number of recorded prompts whose answers are valued, and of agents that
            they are of, for these to count.
        recorded_valid: least share of valid actions among its answers to them: a policy that cannot act in its
            environment is not served there, however little worse it is than the one before.
        quarantined: largest share of a window's rows that may have been corrupt.
        agreement: least correlation of a window's rewards with what its trades were really worth. Rewards that run
            against it were turned around, whoever did it; one such window moves the policy too little to be told from
            noise on the market.
    """

    confidence: float = 0.95
    margin: float = 0.0
    decline: float = 0.01
    valid_drop: float = 0.02
    off_policy_margin: float = 0.1
    off_policy_groups: int = 8
    recorded_prompts: int = 24
    recorded_agents: int = 3
    recorded_valid: float = 0.1
    quarantined: float = 0.5
    agreement: float = -0.2


@dataclass(frozen=True, slots=True)
class Measurement:
    """A policy on the simulated market: mean reward and share of valid actions per seed, in the seeds' order."""

    name: str
    rewards: Sequence[float]
    valid: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """What is known of the checkpoint that asks.

    Attributes:
        market: None where it cannot be played here; `unmeasured` then says why.
        numbers: loss and gradient norm of its training as they were recorded: None for one that was not finite.
        trained_tokens: tokens that the steps of its training that were kept saw.
        window_status: state of its window.
        quarantined: share of its window's rows that were corrupt.
        agreement: correlation of its window's rewards with the worth of the trades; None where that is not known.
        off_policy: its preference for the better of the held-out agents' answers less the champion's, in nats; None
            when there was nothing to compare.
        off_policy_groups: number of groups behind that.
        recorded: its answers to the environment's recorded prompts less the champion's; None where the environment
            cannot value answers.
    """

    name: str
    market: Measurement | None
    unmeasured: str = ""
    numbers: Mapping[str, float | None]
    trained_tokens: int
    window_status: str
    quarantined: float = 0.0
    agreement: float | None = None
    off_policy: Interval | None = None
    off_policy_groups: int = 0
    recorded: PromptComparison | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule applied: whether it holds, and the sentence that says so with its numbers.

    Attributes:
        evidence: whether there was anything to apply it to; a rule without holds nothing against a checkpoint.
    """

    rule: str
    holds: bool
    words: str
    evidence: bool = True


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate says of a checkpoint: every finding, those that hold as well, and the rules that were applied."""

    challenger: str
    champion: str
    findings: tuple[Finding, ...]
    rules: Rules

    @property
    def passed(self) -> bool:
        return all(finding.holds for finding in self.findings)

    @property
    def why(self) -> str:
        """The reasons against it; when there is none, the reasons for it."""
        reasons = [finding.words for finding in self.findings if finding.holds == self.passed]
        return "; ".join(reasons)

    def record(self) -> dict[str, Any]:
        """The verdict as it is kept."""
        return {"passed": self.passed, **asdict(self), "findings": [asdict(finding) for finding in self.findings]}


def may_promote(
    challenger: Challenger, champion: Measurement | None, best: Measurement | None = None, rules: Rules | None = None
) -> GateVerdict:
    """Compare a checkpoint with the one that is served.

    Args:
        champion: the served policy, measured on the same seeds; None where nothing can be played here.
        best: the best of all that were ever promoted, on the same seeds; None for the champion itself.
    """
    rules = rules or Rules()
    findings = [*_training(challenger), *_window(challenger, rules), *_market(challenger, champion, best, rules)]
    findings += [*_recorded(challenger, rules), *_off_policy(challenger, rules)]
    return GateVerdict(challenger.name, champion.name if champion else "-", tuple(findings), rules)


def _training(challenger: Challenger) -> Iterator[Finding]:
    bad = [name for name, value in challenger.numbers.items() if value is None or not math.isfinite(value)]
    words = f"{' and '.join(bad)} of its training was not finite" if bad else "its loss is finite"
    yield Finding("finite", not bad, words)


def _window(challenger: Challenger, rules: Rules) -> Iterator[Finding]:
    thin = challenger.window_status == "thin" or challenger.trained_tokens == 0
    words = "its window is thin" if thin else f"it was trained on {challenger.trained_tokens:,} tokens of its window"
    yield Finding("window", not thin, words)
    share, most = challenger.quarantined, rules.quarantined
    words = f"{share:.0%} of its window's rows were corrupt, at most {most:.0%} may be"
    yield Finding("hygiene", share <= most, words)
    if challenger.agreement is not None:
        words = f"its window's rewards correlate {challenger.agreement:+z.2f} with what the actions were worth"
        poisoned = challenger.agreement < rules.agreement
        yield Finding("rewards", not poisoned, f"{words}: they were turned around" if poisoned else words)


def _market(
    challenger: Challenger, champion: Measurement | None, best: Measurement | None, rules: Rules
) -> Iterator[Finding]:
    if challenger.market is None and challenger.recorded is not None:
        return
    if challenger.market is None or champion is None:
        why = challenger.unmeasured or "its environment has none"
        yield Finding("benchmark", True, f"it was not measured on a benchmark: {why}", evidence=False)
        return
    yield _not_worse("market", challenger.market, champion, "served", rules.margin, rules)
    if best is not None and best.name != champion.name:
        yield _not_worse("best", challenger.market, best, "best so far", rules.decline, rules)
    for other, kind in ((champion, "served"), (best, "best so far")):
        if other is not None and (kind == "served" or other.name != champion.name):
            rule = "valid" if kind == "served" else "best valid"
            yield _valid(rule, challenger.market, other, kind, rules)


def _not_worse(rule: str, ours: Measurement, theirs: Measurement, kind: str, margin: float, rules: Rules) -> Finding:
    difference = paired(ours.rewards, theirs.rewards, confidence=rules.confidence)
    worse = difference.high < -margin
    words = f"its market reward is {_signed(difference)} against {theirs.name} ({kind})"
    return Finding(rule, not worse, f"{words}: worse with confidence, {margin:g} may be lost" if worse else words)


def _valid(rule: str, ours: Measurement, theirs: Measurement, kind: str, rules: Rules) -> Finding:
    difference = paired(ours.valid, theirs.valid, confidence=rules.confidence)
    fallen = difference.high < -rules.valid_drop
    words = f"its share of valid actions is {_signed(difference)} against {theirs.name} ({kind})"
    return Finding(rule, not fallen, f"{words}: fallen, {rules.valid_drop:g} may be lost" if fallen else words)


def _recorded(challenger: Challenger, rules: Rules) -> Iterator[Finding]:
    """The environment's own evidence; where there is little, nothing else takes its place."""
    recorded = challenger.recorded
    if recorded is None:
        return
    if recorded.asked == 0:
        why = challenger.unmeasured or "there is none"
        yield Finding("recorded", True, f"no recorded prompt was answered: {why}", evidence=False)
        return
    if recorded.asked >= rules.recorded_prompts:
        yield _recorded_valid(recorded, rules)
    if recorded.reward is None or recorded.prompts < rules.recorded_prompts or recorded.agents < rules.recorded_agents:
        few = f"{recorded.prompts} of {recorded.asked} recorded prompts, of {recorded.agents} agents, have two valued"
        few += f" answers; {rules.recorded_prompts} of {rules.recorded_agents} agents are needed: there is no evidence"
        yield Finding("recorded", True, few, evidence=False)
        return
    worse = recorded.reward.high < -rules.margin
    words = f"its reward on {recorded.prompts} recorded prompts is {_signed(recorded.reward)} against the served one's"
    yield Finding("recorded", not worse, f"{words}: worse with confidence" if worse else words)


def _recorded_valid(recorded: PromptComparison, rules: Rules) -> Finding:
    share, difference = recorded.valid_share or 0.0, recorded.valid
    words = f"{share:.0%} of its answers to {recorded.asked} recorded prompts are valid actions"
    if share < rules.recorded_valid:
        return Finding("recorded valid", False, f"{words}, at least {rules.recorded_valid:.0%} must be")
    if difference is not None and difference.high < -rules.valid_drop:
        return Finding("recorded valid", False, f"{words}, {_signed(difference)} against the served one's: fallen")
    return Finding("recorded valid", True, words)


def _off_policy(challenger: Challenger, rules: Rules) -> Iterator[Finding]:
    difference = challenger.off_policy
    if difference is None or challenger.off_policy_groups < rules.off_policy_groups:
        groups = challenger.off_policy_groups
        few = (
            f"{format_plural(groups, 'group')} of held-out answers, {rules.off_policy_groups} are needed to compare; "
            "a group is two answers or more at one decision point, with different rewards"
        )
        yield Finding("preference", True, few, evidence=False)
        return
    worse = difference.high < -rules.off_policy_margin
    words = f"its preference for better held-out answers is {_signed(difference)} nats against the served one's"
    yield Finding("preference", not worse, f"{words}: worse with confidence" if worse else words)


def _signed(interval: Interval) -> str:
    return f"{interval.value:+z.3f} [{interval.low:+z.3f}, {interval.high:+z.3f}]"


@dataclass(frozen=True, slots=True)
class ServedResults:
    """How a policy did in the game: answers, share of valid actions, mean reward (None while none is known)."""

    answers: int
    valid: float
    reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How far the live numbers of the served policy may fall below those of the policy before it.

    Attributes:
        answers: fewer than this say nothing.
    """

    valid_drop: float = 0.1
    reward_drop: float = 0.3
    answers: int = 64


def out_of_band(served: ServedResults, before: ServedResults, band: Band) -> str | None:
    """Why the served policy should be rolled back to the one before it; None while it should not.

    Args:
        served: the policy that is served, since it was promoted.
        before: the policy that it replaced, as long as that one was served.
    """
    if served.answers < band.answers or before.answers < band.answers:
        return None
    if served.valid < before.valid - band.valid_drop:
        return f"its share of valid actions is {served.valid:.2f}, before it was {before.valid:.2f}"
    if served.reward is not None and before.reward is not None and served.reward < before.reward - band.reward_drop:
        return f"its reward is {served.reward:+z.3f}, before it was {before.reward:+z.3f}"
    return None
