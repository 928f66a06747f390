"""Recorded answers as ART's tokenised results, from the token ids that were recorded instead of from their texts.

ART renders each conversation three times through the chat template to find where the answer's tokens go, a sixth of a
small model's training. What it finds is what was recorded: prompt and answer as the policy read and gave them. A test
holds both ways to the same tensors. What is compared with what, and how rows are packed, stays as ART has it.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

from babylon_assets.domain.datasets import Sample
from babylon_assets.training.sequence_packing import parts

if TYPE_CHECKING:
    from art.preprocessing.tokenize import TokenizedResult


def tokenized(samples: Iterable[Sample], baselines: Mapping[str, float] | None = None) -> Iterator[TokenizedResult]:
    """The results that ART's `tokenize_trajectory_groups` gives for the samples' groups, drawn by the same generator.

    Advantages are rewards less their group's mean, or its baseline where one is given (`samples.Selection`); a sample
    that has none is left out, as ART does.
    """
    known = baselines or {}
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    for key, group in groups.items():
        mean = known.get(key, sum(sample.reward or 0.0 for sample in group) / len(group))
        results = [_result(sample, advantage) for sample in group if (advantage := (sample.reward or 0.0) - mean)]
        _share_prompt(results)
        random.shuffle(results)
        yield from results


def mixed_steps(answers: Iterable[tuple[str, TokenizedResult]], most: int) -> Iterator[list[TokenizedResult]]:
    """Answers in steps of at most so many.

    A step of answers to one prompt alone would teach what that prompt asked for: at most half a step is taken of a
    group at once, and a large group is spread evenly over the steps. The order is drawn by ART's generator.

    Args:
        answers: each with its group.
        most: two or more.
    """
    groups: dict[str, list[TokenizedResult]] = defaultdict(list)
    for key, result in answers:
        groups[key].append(result)
    pieces: list[tuple[float, list[TokenizedResult]]] = []
    for results in groups.values():
        _share_prompt(results)
        random.shuffle(results)
        cut = [results[piece] for piece in parts(len(results), max(1, most // 2))]
        first = random.random()
        pieces += [((number + first) / len(cut), piece) for number, piece in enumerate(cut)]
    step: list[TokenizedResult] = []
    for _, piece in sorted(pieces, key=lambda placed: placed[0]):
        if len(step) + len(piece) > most:
            yield step
            step = []
        step += piece
    if step:
        yield step


def _result(sample: Sample, advantage: float) -> TokenizedResult:
    prompt, answer = sample.prompt_token_ids or [], sample.token_ids or []
    return tokenized_answer(prompt, answer, list(sample.logprobs or []), advantage)


def tokenized_answer(prompt: list[int], answer: list[int], logprobs: list[float], advantage: float) -> TokenizedResult:
    """An answer whose tokens are known as ART's tokenised result; with its group's, `prompt_length` is shared."""
    from art import Trajectory
    from art.preprocessing.tokenize import TokenizedResult

    return TokenizedResult(
        advantage=advantage,
        chat="",
        token_ids=[*prompt, *answer],
        input_pos=list(range(len(prompt) + len(answer))),
        assistant_mask=[0] * len(prompt) + [1] * len(answer),
        logprobs=[math.nan] * len(prompt) + logprobs,
        pixel_values=None,
        image_grid_thw=None,
        trajectory=Trajectory(messages_and_choices=[], reward=0.0),
        choice_offsets=[len(prompt)],
        extra_logprobs={},
        _tokenizer=cast(Any, None),
        weight=1 / (len(answer) + 1e-6),
    )


def _share_prompt(results: Sequence[TokenizedResult]) -> None:
    """Mark what the answers of a group have in common, which is then packed once."""
    prompt_id = random.randint(-(2**63), 2**63 - 1)
    prompt_length = _shared_length(results)
    for result in results:
        result.prompt_id, result.prompt_length = prompt_id, prompt_length


def _shared_length(results: Sequence[TokenizedResult]) -> int:
    """Tokens that all of a group begin with, less one: an answer keeps the token that its first one is predicted by."""
    columns = zip(*(result.token_ids for result in results), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    first_answered = min((result.choice_offsets[0] for result in results), default=0)
    return max(min(shared, first_answered) - 1, 0)
