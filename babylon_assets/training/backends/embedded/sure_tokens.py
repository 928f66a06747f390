"""Tokens that the policy was sure of: they are an answer's form and no choice, and a good answer's are held."""

from __future__ import annotations

import math

import torch

#: The behaviour policy's probability of a token from which on it was no choice.
SURE = 0.98


def hold_sure_tokens(rows: dict[str, torch.Tensor], weight: float) -> dict[str, torch.Tensor]:
    """The rows with `weight` as the advantage of each trained token that was sure, in answers better than their group.

    An answer's advantage says nothing of such tokens, and its noise wears them away: probability leaks to the rest of
    the vocabulary, each of whose tokens is too rare to be sampled and punished. A large positive weight takes it back
    from all of them at once. In answers no better than their group nothing is held, so that what the policy is sure of
    and should not do is unlearned.

    Args:
        rows: packed tensors, each [rows, length], with `assistant_mask`, `logprobs` (NaN where unknown), `advantages`.
        weight: in units of the mean size of an advantage, which is 1; 0 leaves the rows as they are.
    """
    if not weight:
        return rows
    sure = torch.nan_to_num(rows["logprobs"], nan=-math.inf) > math.log(SURE)
    held = rows["assistant_mask"] & sure & (rows["advantages"] > 0)
    return {**rows, "advantages": rows["advantages"].masked_fill(held, weight)}
