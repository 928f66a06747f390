"""What a base model's chat template has no form for: such samples are not made into tokens, and are counted.

Answers whose tokens were recorded need no template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from babylon_assets.domain.chat_tokens import Feature, InexpressibleError, chat_tokens
from babylon_assets.domain.chat_turns import decoded_tools
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.training.families import find_config
from babylon_assets.training.selection import turns

HAS_PARTS = "a message has a part that is no text"
#: Why a sample is left out, by what the template does not write.
REASONS: dict[Feature, str] = {
    "tools": "the chat template has no form for tools",
    "tool_calls": "the chat template has no form for tool calls",
    "tool_results": "the chat template has no form for results of tools",
    "reasoning": "the chat template has no form for a thought beside an answer",
}
OTHERWISE = "the chat template has no form for this conversation with tools"


def without_inexpressible(dataset: Dataset, base_model: str) -> Dataset:
    """The dataset with those samples skipped whose tokens cannot be made of their texts."""
    textual = [sample for sample in dataset.samples if sample.trains_as in ("sft", "recompute")]
    reasons = inexpressible(base_model, textual)
    samples = [
        replace(sample, trains_as="skip", skip_reason=reasons[sample.sample_id])
        if sample.sample_id in reasons
        else sample
        for sample in dataset.samples
    ]
    return replace(dataset, samples=samples) if reasons else dataset


def inexpressible(base_model: str, samples: Iterable[Sample]) -> dict[str, str]:
    """Why samples cannot be made into tokens by a base model's chat template, by their ids.

    A base model whose files are elsewhere is taken to have a form for everything but parts that are no texts.
    """
    special = {sample.sample_id: sample for sample in samples if _has_parts(sample) or any(_features(sample))}
    reasons = {name: HAS_PARTS for name, sample in special.items() if _has_parts(sample)}
    config = find_config(base_model)
    if special.keys() == reasons.keys() or config is None:
        return reasons
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.parent)
    for name in special.keys() - reasons.keys():
        if reason := _reason_against(tokenizer, special[name]):
            reasons[name] = reason
    return reasons


def _reason_against(tokenizer: object, sample: Sample) -> str | None:
    tokens = chat_tokens(tokenizer)
    for feature in _features(sample):
        if not tokens.expresses(feature):
            return REASONS[feature]
    *before, answer = turns(sample)
    tools = decoded_tools(sample.tools)
    try:
        tokens.prompt(before, tools)
        if answer.keys() > {"role", "content"}:
            tokens.turn(before, answer, tools)
    except InexpressibleError:
        return OTHERWISE
    return None


def _has_parts(sample: Sample) -> bool:
    return any(message.parts is not None for message in sample.messages)


def _features(sample: Sample) -> Iterator[Feature]:
    """What a template must have a form for, beyond texts."""
    if sample.tools:
        yield "tools"
    if sample.tool_calls or any(message.tool_calls for message in sample.messages):
        yield "tool_calls"
    if any(message.role in ("tool", "function") for message in sample.messages):
        yield "tool_results"
    if sample.reasoning:
        yield "reasoning"
