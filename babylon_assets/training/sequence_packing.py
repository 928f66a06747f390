"""ART's packed rows laid out anew for a step: as short as the longest group allows, with hardly any padding.

Groups do not see each other, so where they stand changes nothing but the time: attention costs the square of a row's
length, and a row of 1,024 tokens that holds two groups of 360 is paid for in full. Which samples a step takes is ART's
packing and the settings; nothing of that changes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Rows are this or a multiple of it long, which is what the kernels like.
MULTIPLE = 16
#: What stands where a row holds nothing, by the name of the tensor; others are 0.
_NOTHING: dict[str, float] = {"group_ids": -1, "parent_ids": -1, "logprobs": float("nan")}


def compacted(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same groups in rows as long as the longest of them, each put into the first row with room, longest first.

    Two rows may hold answers to the same prompt, each with its prompt. They stay apart: in one row, an answer would see
    that prompt twice.

    Args:
        rows: ART's packed tensors, each [rows, length]; equal `parent_ids` of a row are a group, -1 is padding. A
            group need not be in one piece: only its first piece has the prompt.

    Returns:
        The same tensors, each [other rows, other length]; every token is in exactly one place, a group in one piece.
    """
    import torch

    groups = sorted(_groups(rows["parent_ids"]), key=lambda group: -len(group[2]))  # longest first, else in order
    if not groups:
        return rows
    length = -(-len(groups[0][2]) // MULTIPLE) * MULTIPLE
    taken: list[dict[int, int]] = []  # of each row: the tokens that each group in it has
    laid_out: list[tuple[int, int]] = []
    for _, parent, held in groups:
        fits = (parent not in row and sum(row.values()) + len(held) <= length for row in taken)
        number = next((number for number, fit in enumerate(fits) if fit), len(taken))
        if number == len(taken):
            taken.append({})
        laid_out.append((number, sum(taken[number].values())))
        taken[number][parent] = len(held)
    laid = {name: torch.full((len(taken), length), _NOTHING.get(name, 0), dtype=t.dtype) for name, t in rows.items()}
    for (source, _, held), (row, start) in zip(groups, laid_out, strict=True):
        for name, tensor in rows.items():
            laid[name][row, start : start + len(held)] = tensor[source, held]
    return laid


def without_padding(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows, cut where the longest of them ends; each begins with what it holds."""
    held = (rows["parent_ids"] != -1).any(dim=0).sum()
    length = -(-max(int(held), 1) // MULTIPLE) * MULTIPLE
    return {name: tensor[:, :length] for name, tensor in rows.items()}


def _groups(parent_ids: torch.Tensor) -> list[tuple[int, int, list[int]]]:
    """(row, id, places in it) of everything that is no padding."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, ids in enumerate(parent_ids.tolist()):
        for place, parent in enumerate(ids):
            if parent != -1:
                groups.setdefault((row, parent), []).append(place)
    return [(row, parent, places) for (row, parent), places in groups.items()]


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of `size`, the last one maybe shorter, that cover `count`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
