"""Two policies side by side: what both were measured by, by kind of decision, and where they differ most.

Differences are the second policy's less the first's. Numbers in, numbers out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from babylon_assets.domain.evaluations import Interval
from babylon_assets.domain.prompt_evaluation import PromptAnswer, clustered, clusters, compare_answers

#: Prompts that a comparison shows, those on which the policies differ most first.
MOST_PROMPTS = 12


@dataclass(frozen=True, slots=True)
class MeasuredTwice:
    """One evaluation of both policies.

    Attributes:
        evaluation, window: which one, and on what; both were measured by the very same cases.
        first, second: the value of each with its interval; None where there is none to give, and only the difference.
        difference: the mean difference case by case; None where the cases are not kept.
        valid_shares: share of the answers of each that could be carried out.
    """

    evaluation: str
    window: str | None
    first: Interval | None
    second: Interval | None
    difference: Interval | None
    valid_shares: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class KindOfDecision:
    """Both policies on the prompts at which the record's own agents did one kind of thing.

    Attributes:
        prompts: how many prompts where the record values both answers; the means and the difference are over these.
    """

    kind: str
    prompts: int
    first: float
    second: float
    difference: Interval
    valid_shares: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PromptTwice:
    """One prompt with both answers; action and text are empty where they were not kept.

    Attributes:
        prompt: the sample's id.
        kind: what the record's own agent did.
    """

    prompt: str
    kind: str
    first: PromptAnswer
    second: PromptAnswer
    actions: tuple[str, str]
    texts: tuple[str, str]

    @property
    def gap(self) -> float:
        """How far apart the answers are in reward; an answer that could not be valued counts as 0."""
        return abs((self.second.reward or 0.0) - (self.first.reward or 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPolicies:
    """All that is known of two policies side by side.

    Attributes:
        measured: every evaluation that both have.
        prompts: how many recorded prompts both answered; 0 where they were not asked the same.
        kinds: by kind of decision, the most frequent first.
        differing: the prompts on which they differ most.
    """

    first: str
    second: str
    measured: Sequence[MeasuredTwice]
    prompts: int
    kinds: Sequence[KindOfDecision]
    differing: Sequence[PromptTwice]


def describe_difference(interval: Interval | None) -> str:
    """Whether a difference is clearly for the `better`, for the `worse`, or neither, which is empty."""
    if interval is None or isnan(interval.low):
        return ""
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else ""


def explain_comparison(compared: ComparedPolicies) -> str:
    """Which policy is better, in a sentence: the second one as each evaluation shows it that has a difference.

    Each evaluation counts with its newest difference; empty where there is none.
    """
    ways: dict[str, str] = {}
    for row in compared.measured:
        if row.difference is not None and not isnan(row.difference.low):
            ways.setdefault(row.evaluation.replace("_", " "), describe_difference(row.difference))
    clauses: list[str] = []
    for way, words in (("better", "clearly better"), ("worse", "clearly worse"), ("", "not clearly better or worse")):
        if named := [name for name, shown in ways.items() if shown == way]:
            than = "" if clauses else f" than {compared.first}"
            clauses.append(f"{words}{than} by {' and by '.join(named)}")
    return f"{compared.second} is {'; '.join(clauses)}" if clauses else ""


def compare_prompts(
    first: Mapping[str, PromptAnswer], second: Mapping[str, PromptAnswer]
) -> tuple[Interval | None, tuple[float | None, float | None]]:
    """The mean difference of rewards, and the shares of valid answers, over the prompts that both answered."""
    shared = sorted(set(first) & set(second))
    difference = compare_answers(second, first).reward
    return difference, (_valid_share([first[name] for name in shared]), _valid_share([second[name] for name in shared]))


def _valid_share(answers: Sequence[PromptAnswer]) -> float | None:
    return sum(answer.valid for answer in answers) / len(answers) if answers else None


def compare_kinds(
    first: Mapping[str, PromptAnswer], second: Mapping[str, PromptAnswer], kinds: Mapping[str, str]
) -> list[KindOfDecision]:
    """Both policies by kind of decision.

    Args:
        kinds: what the record's own agent did, by prompt; a prompt of which that is not kept is left out.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(first) & set(second) & set(kinds)):
        if first[name].reward is not None and second[name].reward is not None:
            members[kinds[name]].append(name)
    rows = []
    for kind, names in members.items():
        ours, theirs = [first[name] for name in names], [second[name] for name in names]
        gains = [(b.reward or 0.0) - (a.reward or 0.0) for a, b in zip(ours, theirs, strict=True)]
        difference = clustered(gains, clusters(ours))
        assert difference is not None  # there is a prompt
        means = [sum(answer.reward or 0.0 for answer in answers) / len(answers) for answers in (ours, theirs)]
        shares = (_valid_share(ours) or 0.0, _valid_share(theirs) or 0.0)
        rows.append(KindOfDecision(kind, len(names), means[0], means[1], difference, shares))
    return sorted(rows, key=lambda row: (-row.prompts, row.kind))


def rank_differing(prompts: Sequence[PromptTwice], most: int = MOST_PROMPTS) -> list[PromptTwice]:
    """The prompts on which the answers are furthest apart, those first; none on which they are worth the same."""
    apart = [prompt for prompt in prompts if prompt.gap > 0]
    return sorted(apart, key=lambda prompt: (-prompt.gap, prompt.prompt))[:most]
