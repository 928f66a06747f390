"""The embedded engine: a base model and one adapter, answering batches of conversations on the CPU or a CUDA device.

The adapter is merged into the weights once, when it is activated. Answers are sampled token by token over a
key-value cache; each conversation has a random stream of its own, so that its answer does not depend on what else
is in the batch. Knows nothing of HTTP or of the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from babylon_assets.core.policies import Completion
from babylon_assets.core.trajectories import Message

if TYPE_CHECKING:
    import torch


class Engine:
    """Answers conversations with one policy at a time.

    Args:
        base: folder of the base model (weights, tokenizer with a chat template).
        name: the policy's name until an adapter is activated.
    """

    def __init__(self, base: Path, name: str = "base") -> None:
        import torch
        from transformers import AutoTokenizer

        self._base = base
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self.activate(None, name)

    @property
    def name(self) -> str:
        """The policy that answers now."""
        return self._name

    def activate(self, adapter: Path | None, name: str) -> None:
        """Answer with the base model and `adapter` merged into it (None: the base model as it is) from now on."""
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(self._base, dtype=torch.float32)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        self._model, self._name = model.to(self._device).eval(), name

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Completion]:
        """Sample one answer for each conversation.

        Args:
            conversations: messages that end with a user's.
            seeds: one seed per conversation.
            max_tokens: longest answer, in tokens; a longer one is cut with finish_reason `length`.
            temperature: 0 takes the likeliest token; the log-probabilities are those at temperature 1 whatever this is.
        """
        prompts = [self._encode(conversation) for conversation in conversations]
        uniforms = np.stack([np.random.default_rng(seed).random(max_tokens) for seed in seeds])
        sampled, logprobs = self._decode(prompts, uniforms, temperature)
        return [self._completion(*row) for row in zip(prompts, sampled, logprobs, strict=True)]

    def _encode(self, conversation: Sequence[Message]) -> list[int]:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        ids: list[int] = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids

    def _decode(
        self, prompts: list[list[int]], uniforms: np.ndarray[Any, np.dtype[np.float64]], temperature: float
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and log-probabilities per conversation, each ending with the end of turn if it was sampled."""
        import torch

        tokens, mask = self._left_pad(prompts)
        draws = torch.from_numpy(uniforms).to(self._device)
        alive = torch.ones(len(prompts), dtype=torch.bool, device=self._device)
        steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        cache: Any = None
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            for step in range(draws.shape[1]):
                out = self._model(
                    input_ids=tokens,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache = out.past_key_values
                chosen, logprob = _sample(out.logits[:, -1].float(), draws[:, step], temperature)
                steps.append((chosen, logprob, alive.clone()))
                alive &= chosen != self._tokenizer.eos_token_id
                if not bool(alive.any()):
                    break
                tokens, positions = chosen[:, None], positions[:, -1:] + 1
                mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        return _by_conversation(steps)

    def _left_pad(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        longest = max(len(prompt) for prompt in prompts)
        tokens = torch.full((len(prompts), longest), int(self._tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        return tokens.to(self._device), mask.to(self._device)

    def _completion(self, prompt: list[int], token_ids: list[int], logprobs: list[float]) -> Completion:
        stopped = token_ids[-1] == self._tokenizer.eos_token_id
        text = self._tokenizer.decode(token_ids[:-1] if stopped else token_ids)
        return Completion(text, prompt, token_ids, logprobs, "stop" if stopped else "length")


def _sample(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row, where the cumulative distribution passes `uniform`; its log-probability at temperature 1."""
    import torch

    logprobs = torch.log_softmax(logits, dim=-1)
    if temperature == 0:
        chosen = logprobs.argmax(dim=-1)
    else:
        cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
        chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).squeeze(1)
        chosen = chosen.clamp(max=logits.shape[-1] - 1)
    return chosen, logprobs.gather(1, chosen[:, None]).squeeze(1)


def _by_conversation(
    steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
) -> tuple[list[list[int]], list[list[float]]]:
    """Turn per-step columns into per-conversation rows, without what was sampled after an end of turn."""
    import torch

    tokens, logprobs, alive = (torch.stack(column, dim=1).cpu().tolist() for column in zip(*steps, strict=True))
    lengths = [sum(row) for row in alive]
    return (
        [row[:length] for row, length in zip(tokens, lengths, strict=True)],
        [row[:length] for row, length in zip(logprobs, lengths, strict=True)],
    )
