"""Log-probabilities of tokens under a model, and the attention mask of packed rows.

Works in chunks over the positions that are asked for, so that no [tokens, vocabulary] tensor of a whole batch ever
exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Positions whose logits exist at the same time, fewest and most, and how many logits that may be: five times 16 MiB,
#: for their softmax and its gradient are as large.
LEAST_CHUNK, CHUNK, CHUNK_LOGITS = 64, 512, 2**22


def packed_attention_mask(group_ids: torch.Tensor, parent_ids: torch.Tensor) -> torch.Tensor:
    """The block mask of packed rows: which positions each position may look at.

    A position sees earlier positions of its own answer (`group_ids` equal) and of the prompt that it shares
    (`group_ids` of the seen one equals its `parent_ids`), so that answers packed side by side do not see each other.

    Args:
        group_ids: [rows, length]; an id per answer, the prompt's id over a shared prompt, -1 over padding.
        parent_ids: [rows, length]; the prompt's id over a prompt and over all of its answers.

    Returns:
        Boolean [rows, 1, length, length].
    """
    import torch

    length = group_ids.shape[1]
    same = group_ids[:, :, None] == group_ids[:, None, :]
    parent = parent_ids[:, :, None] == group_ids[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=group_ids.device).tril()
    return ((same | parent) & causal)[:, None]


def token_logprobs(
    model: Any,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    chosen: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each next token, and the entropy of its distribution, at the chosen positions.

    Args:
        model: a causal language model with a `lm_head`, or a peft model around one.
        tokens: [rows, length] token ids.
        mask: boolean [rows, 1, length, length] as of `packed_attention_mask`.
        positions: [rows, length] position ids.
        chosen: boolean [rows, length]; True at the positions whose **next** token is asked for.

    Returns:
        Two fp32 tensors [rows, length] in nats, zero where nothing was chosen; gradients flow through the
        first, and to the head where it is trained or adapted itself.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False)
    selected = hidden.last_hidden_state[chosen]
    following = torch.roll(tokens, -1, dims=1)[chosen]
    score = _frozen_head if _is_frozen(causal.lm_head) else _in_chunks
    flat_logprobs, flat_entropies = score(causal.lm_head, selected, following)
    logprobs, entropies = (torch.zeros(tokens.shape, device=tokens.device) for _ in range(2))
    return logprobs.masked_scatter(chosen, flat_logprobs), entropies.masked_scatter(chosen, flat_entropies)


def chunk_size(vocabulary: int) -> int:
    """Positions whose logits exist at the same time: 512 for a small vocabulary, 85 for 49,152 tokens, at least 64."""
    return min(CHUNK, max(LEAST_CHUNK, CHUNK_LOGITS // vocabulary))


def _is_frozen(head: Any) -> bool:
    """Whether a head is a matrix and nothing else, and not trained."""
    import torch

    return type(head) is torch.nn.Linear and getattr(head, "bias", None) is None and not head.weight.requires_grad


def _frozen_head(head: Any, hidden: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from babylon_assets.training.answer_head import AnswerHead

    size = chunk_size(head.weight.shape[0])
    scored: tuple[torch.Tensor, torch.Tensor] = AnswerHead.apply(hidden, head.weight, following, size)  # type: ignore[no-untyped-call]
    return scored


def _in_chunks(head: Any, hidden: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    from torch.utils.checkpoint import checkpoint

    def score_chunk(chunk: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs = torch.log_softmax(head(chunk).float(), dim=-1)
        return logprobs.gather(1, targets[:, None]).squeeze(1), -(logprobs.exp() * logprobs).sum(-1)

    size = chunk_size(head.weight.shape[0])
    pieces = zip(torch.split(hidden, size), torch.split(following, size), strict=True)
    results = [checkpoint(score_chunk, chunk, targets, use_reentrant=False) for chunk, targets in pieces]
    logprobs, entropies = zip(*results, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)
