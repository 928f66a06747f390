"""The embedded engine: a base model and its adapters, answering batches of conversations on the CPU or a CUDA device.

A small model's adapter is merged into the weights once, when it is loaded. A large model computes in bf16 where that is
fast, and its policies share the base model's weights. Knows nothing of HTTP or of the database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from babylon_assets.config.heap import trim_heap
from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.engine.batching import Batch, Generation
from babylon_assets.serving.engine.low_rank import with_adapter
from babylon_assets.serving.engine.model_weights import load_weights
from babylon_assets.serving.engine.number_formats import engine_dtype
from babylon_assets.serving.engine.texts import ChatTokenizer

if TYPE_CHECKING:
    from babylon_assets.serving.engine.model_weights import Weights


#: Policies that are served at the same time: the promoted one and its challenger.
SERVED = 2


class Library:
    """Policies' merged weights, by adapter folder (None: the base model as it is); the last few used are kept.

    May be used by several threads: a policy that is being merged holds up nobody who asks for one in memory.

    Args:
        base: folder of the base model (weights, tokenizer with a chat template).
        kept: how many policies stay in memory.
        dtype: the numbers that are computed with; None: as it suits the model and the processor.

    Attributes:
        base: as given.
        device: where the weights are.
    """

    def __init__(self, base: Path, kept: int = 2, dtype: str | None = None) -> None:
        import torch

        self.base, self._kept, self._dtype = base, kept, dtype or engine_dtype(base)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._shared: Weights | None = None
        self._weights: OrderedDict[Path | None, Weights] = OrderedDict()
        self._served: deque[Path | None] = deque(maxlen=SERVED)
        self._order, self._merging = threading.Lock(), threading.Lock()
        self.tokenizer = ChatTokenizer(base)

    def cached(self, adapter: Path | None) -> Weights | None:
        """The policy's weights if they are in memory."""
        with self._order:
            cached = self._weights.get(adapter)
            if cached is not None:
                self._weights.move_to_end(adapter)
            return cached

    def keep(self, adapter: Path | None) -> None:
        """Keep a policy in memory that is served, whoever asks for others, until `SERVED` newer ones are."""
        with self._order:
            if adapter in self._served:
                return
            self._served.append(adapter)
        trim_heap()  # of the caches and adapters of policies before it

    def weights(self, adapter: Path | None) -> Weights:
        """The policy's weights; merged now if they are not in memory. What is in use elsewhere stays valid."""
        with self._merging:
            weights = self.cached(adapter)
            if weights is None:
                weights = self._read(adapter)
                with self._order:
                    self._weights[adapter] = weights
                    others = [kept for kept in self._weights if kept not in self._served]
                    for unused in others[: max(0, len(self._weights) - self._kept)]:
                        del self._weights[unused]
            return weights

    def _read(self, adapter: Path | None) -> Weights:
        """The policy's weights from the disk: in bf16 those of the base model, which is read once, with its adapter."""
        ends = frozenset([self.tokenizer.end])
        if self._dtype == "float32":
            return load_weights(self.base, adapter, self.device, ends)
        if self._shared is None:
            self._shared = load_weights(self.base, None, self.device, ends, self._dtype)
        beside = self._shared if adapter is None else with_adapter(self._shared, adapter)
        return beside or load_weights(self.base, adapter, self.device, ends, self._dtype)


class Engine:
    """Answers conversations with one policy at a time.

    Args:
        base: folder of the base model (weights, tokenizer with a chat template).
        name: the policy's name until an adapter is activated.
        width: answers that are under way at the same time.
        dtype: the numbers that are computed with; None: as it suits the model and the processor.
    """

    def __init__(self, base: Path, name: str = "base", width: int = 256, dtype: str | None = None) -> None:
        self._library, self._width = Library(base, kept=1, dtype=dtype), width
        self.activate(None, name)

    @property
    def name(self) -> str:
        """The policy that answers now."""
        return self._name

    def activate(self, adapter: Path | None, name: str) -> None:
        """Answer with the base model and `adapter` merged into it (None: the base model as it is) from now on."""
        self._weights, self._name = self._library.weights(adapter), name

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
        import torch

        tokenizer = self._library.tokenizer
        generations = [
            Generation(tokenizer.prompt(conversation), seed, max_tokens, temperature)
            for conversation, seed in zip(conversations, seeds, strict=True)
        ]
        batch, waiting = Batch(self._weights, tokenizer.text), list(reversed(generations))
        with torch.inference_mode():
            while waiting or len(batch):
                admitted = [waiting.pop() for _ in range(min(len(waiting), self._width - len(batch)))]
                if admitted:
                    batch.admit(admitted)
                batch.step()
        return [completion(generation, tokenizer) for generation in generations]


def completion(generation: Generation, tokenizer: ChatTokenizer) -> Completion:
    """A finished generation as an answer; its text ends where a stop begins, its tokens are all that were sampled."""
    text = tokenizer.text(generation.token_ids[: generation.text_tokens])[: generation.cut]
    return Completion(
        text, generation.prompt, generation.token_ids, generation.logprobs, generation.finish_reason or "length"
    )
