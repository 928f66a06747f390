"""The head of a language model over the answers' tokens as one differentiable function.

With logits z = W h, the gradient of log p(y) for h is W[y] - p @ W. It is computed with the log-probability itself, so
that the logits of a chunk exist once and are gone with it: nothing is kept for the backward pass but a vector of h's
width, and no logits are computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear


class AnswerHead(torch.autograd.Function):
    """Log-probability of each next token and the entropy of its distribution; the first has a gradient for `hidden`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, following: torch.Tensor, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two fp32 tensors [positions], in nats.

        Args:
            hidden: [positions, width].
            weight: [vocabulary, width]; it is not trained.
            following: [positions] the next tokens' ids.
            chunk: positions whose logits exist at the same time.
        """
        logprobs, entropies, directions = [], [], []
        with torch.autocast(hidden.device.type, enabled=False):
            for part, tokens in zip(torch.split(hidden, chunk), torch.split(following, chunk), strict=True):
                logprob = torch.log_softmax(linear(part.to(weight.dtype), weight).float(), dim=-1)
                probability = logprob.exp()
                logprobs.append(logprob.gather(1, tokens[:, None]).squeeze(1))
                entropies.append(-torch.linalg.vecdot(probability, logprob))
                if ctx.needs_input_grad[0]:
                    directions.append(weight[tokens] - probability.to(weight.dtype) @ weight)
        ctx.save_for_backward(*([torch.cat(directions)] if directions else []))
        ctx.dtype = hidden.dtype
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, of_logprobs: torch.Tensor, _of_entropies: torch.Tensor) -> Any:
        """The gradient of `hidden`; the others have none."""
        (directions,) = ctx.saved_tensors
        return (of_logprobs[:, None] * directions).to(ctx.dtype), None, None, None
