"""Off-policy evaluation: what a policy thinks of answers that were really given, to agents that are never trained on.

Two figures of one window: how much likelier the policy finds the better answers than the worse to the same board, and
what it would have earned, by importance weights. A held-out answer is compared with held-out answers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.evaluations import OffPolicy, ScoredAnswer, off_policy, preferences
from babylon_assets.domain.sampling import HELD_OUT
from babylon_assets.training.recompute import answer_logprobs, load_policy, turns_of
from babylon_assets.training.template_limits import inexpressible

NAME = "off_policy"


@dataclass(frozen=True, slots=True)
class OffPolicyResult:
    """A policy on a window's held-out answers.

    Attributes:
        answers: how many held-out answers with a known reward there are.
        preferences: log p(better) - log p(worse) in nats, mean over the pairs of each group that has one.
        estimate: what it would have earned, or why that cannot be said.
    """

    answers: int
    preferences: dict[str, float]
    estimate: OffPolicy


def version(dataset: Dataset, least_effective: float) -> str:
    """What decides the numbers, as a name: the very answers, and when an estimate is refused."""
    return f"3-{dataset.id[:12]}-{least_effective:g}"


def held_out_samples(dataset: Dataset) -> list[Sample]:
    """The answers to held-out agents whose reward is known: of our own policies, or of others where none is ours.

    So a window whose answers were imitated is evaluated on those that were not.
    """
    answers = [sample for sample in dataset.samples if sample.skip_reason == HELD_OUT and sample.reward is not None]
    return [sample for sample in answers if sample.policy_step is not None] or answers


def score_answers(
    base_model: str, adapter: Path | None, samples: Sequence[Sample], least_effective: float
) -> OffPolicyResult:
    """Look at held-out answers with one policy; recorded token ids are taken as they are, texts are tokenised.

    Args:
        adapter: the policy's checkpoint folder; None for the base model as it is.
        least_effective: of the off-policy estimate, see `domain.evaluations.off_policy`.
    """
    unreadable = inexpressible(base_model, [sample for sample in samples if not _has_tokens(sample)])
    samples = [sample for sample in samples if sample.sample_id not in unreadable]
    if not samples:
        return OffPolicyResult(0, {}, off_policy([], [], [], least_effective))
    unknown = [sample for sample in samples if not _has_tokens(sample)]
    texts = iter(turns_of(base_model, unknown) if unknown else [])
    turns = [
        (sample.prompt_token_ids, sample.token_ids) if sample.prompt_token_ids and sample.token_ids else next(texts)
        for sample in samples
    ]
    totals = [math.fsum(values) for values in answer_logprobs(load_policy(base_model, adapter), turns)]
    answers = [
        ScoredAnswer(sample.group, sample.reward or 0.0, total) for sample, total in zip(samples, totals, strict=True)
    ]
    recorded = [(total, sample) for total, sample in zip(totals, samples, strict=True) if sample.logprobs]
    estimate = off_policy(
        [total for total, _ in recorded],
        [math.fsum(sample.logprobs or ()) for _, sample in recorded],
        [sample.reward or 0.0 for _, sample in recorded],
        least_effective,
    )
    return OffPolicyResult(len(samples), preferences(answers), estimate)


def _has_tokens(sample: Sample) -> bool:
    return bool(sample.prompt_token_ids and sample.token_ids)
