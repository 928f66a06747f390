"""How many long conversations are under way at once: as many as have room in memory, and one of each key whatever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from babylon_assets.serving.engine.batching import Batch
from babylon_assets.serving.engine.decoder import Cache

if TYPE_CHECKING:
    import torch

    from babylon_assets.serving.engine.model_weights import Weights

#: Bytes that the keys and values of long conversations may take on a CPU, and their share of a GPU's memory.
CPU_BYTES, GPU_SHARE = 2**29, 1 / 4


def default_bytes(device: torch.device) -> int:
    """What the keys and values of long conversations may take where no setting says it."""
    if device.type != "cuda":
        return CPU_BYTES
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory * GPU_SHARE)


class LongConversations:
    """Those that begin before the engine's next step, and what the keys and values of all will take.

    A key that has none under way may begin one whatever the others hold: all get their turn.

    Args:
        batches: of long conversations, one a policy.
        most_bytes: what their keys and values may take together.
        keys: who has one under way.
    """

    def __init__(self, batches: Iterable[Batch], most_bytes: int, keys: Iterable[str]) -> None:
        self._batches = {id(batch.weights): batch for batch in batches}
        self._joining: dict[int, tuple[Weights, list[int]]] = {key: (b.weights, []) for key, b in self._batches.items()}
        self._most_bytes, self._keys = most_bytes, set(keys)

    def has_room(self, weights: Weights, tokens: int, key: str) -> bool:
        """Whether one more may begin, which has so many tokens with its longest answer."""
        if key not in self._keys:
            return True
        joining = self._joining | {id(weights): (weights, [*self._lengths(weights), tokens])}
        return sum(self._bytes(policy, lengths) for policy, lengths in joining.values()) <= self._most_bytes

    def begin(self, weights: Weights, tokens: int, key: str) -> None:
        """Count one in."""
        self._joining[id(weights)] = (weights, [*self._lengths(weights), tokens])
        self._keys.add(key)

    def _lengths(self, weights: Weights) -> list[int]:
        return self._joining.get(id(weights), (weights, []))[1]

    def _bytes(self, weights: Weights, lengths: list[int]) -> int:
        batch = self._batches.get(id(weights))
        if batch is not None:
            return batch.cache_bytes(lengths)
        return Cache(weights).bytes_with(len(lengths), max(lengths) + 1)
