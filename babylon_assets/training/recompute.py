"""Log-probabilities of answers that are known as text only, by a forward pass under the policy that gave them.

The text is tokenised again, prompt by the chat template and answer with its end of turn. For a policy that was taught
the result is what was sampled; recording the tokens when they are sampled is better, and what is recorded is not
touched here. Which answers are known as text only is decided in `domain.datasets`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from babylon_assets.domain.chat_turns import answer_message, decoded_tools, shown_text
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.training.capacity import context_of
from babylon_assets.training.selection import Selection, turns

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

#: Answers that one forward pass takes.
BATCH = 16
#: Tokens, with padding, that one forward pass takes at most; a longer answer goes alone.
BATCH_TOKENS = 32_768
#: More tokens than a chat template adds to a short conversation.
TEMPLATE_TOKENS = 256

#: Token ids of a prompt and of the answer to it.
Turn = tuple[list[int], list[int]]


def fill(
    base_model: str, dataset: Dataset, known: Sequence[Checkpoint], lags: Mapping[str, int], max_lag: int
) -> tuple[Dataset, int]:
    """Give the text-only answers of the chain's own policies token ids and log-probabilities, and count them.

    Args:
        known: the chain and its branches; weights are looked for in their folders. Answers of a policy that is not
            among them, whose weights are gone, or that is more than `max_lag` checkpoints away stay as they are.
        lags: how many checkpoints each policy is from the parent, by its name.
    """
    answering = {
        policy_name(checkpoint.chain, checkpoint.step): checkpoint for checkpoint in known if _has_weights(checkpoint)
    }
    by_policy: dict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        name = sample.policy or ""
        if sample.trains_as == "recompute" and name in answering and lags.get(name, 0) <= max_lag:
            by_policy[name].append(sample)
    filled = {
        sample.sample_id: sample
        for name, samples in sorted(by_policy.items())
        if _is_intact(answering[name])
        for sample in recomputed(base_model, _adapter(answering[name]), samples)
    }
    samples = [filled.get(sample.sample_id, sample) for sample in dataset.samples]
    return msgspec.structs.replace(dataset, samples=samples), len(filled)


def _adapter(checkpoint: Checkpoint) -> Path | None:
    return Path(checkpoint.path) if checkpoint.step else None


def _is_intact(checkpoint: Checkpoint) -> bool:
    """Whether a policy's weights are those that the ledger recorded; others count as gone."""
    try:
        if checkpoint.step:
            verify_weights(Path(checkpoint.path), checkpoint.weights_sha256)
    except CorruptLedger as error:
        logger.warning("no log-probabilities under step %s of %s: %s", checkpoint.step, checkpoint.chain, error)
        return False
    return True


def _has_weights(checkpoint: Checkpoint) -> bool:
    return checkpoint.step == 0 or (bool(checkpoint.path) and (Path(checkpoint.path) / WEIGHTS).is_file())


def recomputed(base_model: str, adapter: Path | None, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with token ids and log-probabilities (natural, temperature 1) under one policy, as policy gradient.

    Args:
        adapter: the policy's checkpoint folder; None for the base model as it is.
    """
    encoded = turns_of(base_model, samples)
    logprobs = answer_logprobs(load_policy(base_model, adapter), encoded)
    return [
        msgspec.structs.replace(
            sample, prompt_token_ids=prompt, token_ids=answer, logprobs=values, trains_as="policy_gradient"
        )
        for sample, (prompt, answer), values in zip(samples, encoded, logprobs, strict=True)
    ]


def leave_out_longer(selection: Selection, base_model: str) -> Selection:
    """The selection without samples for which the base model's context has no room, counted under the reason."""
    context = context_of(base_model)
    if context is None:
        return selection
    policy_gradient = [sample for sample in selection.policy_gradient if _recorded_tokens(sample) <= context]
    # A token is at least one byte: most texts are short enough without being tokenised.
    doubtful = [sample for sample in selection.sft if _bytes(sample) > context - TEMPLATE_TOKENS]
    encoded = turns_of(base_model, doubtful) if doubtful else []
    too_long = {
        sample.sample_id
        for sample, (prompt, answer) in zip(doubtful, encoded, strict=True)
        if len(prompt) + len(answer) > context
    }
    sft = [sample for sample in selection.sft if sample.sample_id not in too_long]
    lost = len(selection.policy_gradient) + len(selection.sft) - len(policy_gradient) - len(sft)
    counted = {f"longer than the base model's context of {context} tokens": lost} if lost else {}
    return replace(selection, policy_gradient=policy_gradient, sft=sft, left_out={**selection.left_out, **counted})


def _recorded_tokens(sample: Sample) -> int:
    return len(sample.prompt_token_ids or ()) + len(sample.token_ids or ())


def _bytes(sample: Sample) -> int:
    texts = [shown_text(message) for message in (*sample.messages, answer_message(sample))]
    return sum(len(text.encode()) for text in (*texts, sample.tools or ""))


def load_policy(base_model: str, adapter: Path | None) -> Any:
    """The model of one policy, for looking at and not for training, in the numbers that the engine samples in."""
    import torch
    from transformers import AutoModelForCausalLM

    from babylon_assets.serving.engine.number_formats import engine_dtype

    dtype = getattr(torch, engine_dtype(Path(base_model)))
    model: Any = AutoModelForCausalLM.from_pretrained(base_model, dtype=dtype)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def turns_of(base_model: str, samples: Sequence[Sample]) -> list[Turn]:
    """Token ids of each sample's prompt and answer, made of their texts: an answer ends with its end of turn.

    Raises:
        InexpressibleError: the model's chat template has no form for one; `template_limits` says so before.
    """
    from transformers import AutoTokenizer

    from babylon_assets.training.backends.embedded.art_backend import encode_turns

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    return [encode_turns(tokenizer, turns(sample), decoded_tools(sample.tools)) for sample in samples]


def answer_logprobs(model: Any, turns: Sequence[Turn]) -> list[list[float]]:
    """Natural log-probability of each answer's tokens at temperature 1, BATCH answers at a time."""
    import torch

    with torch.no_grad():
        return [values for batch in _batches(turns) for values in _batch_logprobs(model, batch)]


def _batches(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    """The turns in their order, BATCH at a time, or fewer where they are long: what bounds the memory."""
    start = 0
    while start < len(turns):
        longest, end = 0, start
        while end < min(len(turns), start + BATCH):
            longest = max(longest, len(turns[end][0]) + len(turns[end][1]))
            if end > start and longest * (end - start + 1) > BATCH_TOKENS:
                break
            end += 1
        yield turns[start:end]
        start = end


def _batch_logprobs(model: Any, turns: Sequence[Turn]) -> list[list[float]]:
    """The same for some (prompt, answer) pairs side by side, padded on the right."""
    import torch

    from babylon_assets.training.logprobs import token_logprobs

    length = max(len(prompt) + len(answer) for prompt, answer in turns)
    tokens: torch.Tensor = torch.zeros(len(turns), length, dtype=torch.long)
    chosen = torch.zeros(len(turns), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(turns):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        chosen[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
    device = next(model.parameters()).device
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    positions = torch.arange(length, device=device).expand(len(turns), length)
    logprobs, _ = token_logprobs(model, tokens.to(device), causal, positions, chosen.to(device))
    return [values[mask].tolist() for values, mask in zip(logprobs.cpu(), chosen, strict=True)]
