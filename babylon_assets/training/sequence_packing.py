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

    Args:
        rows: ART's packed tensors, each [rows, length]; a run of equal `parent_ids` is a group, -1 is padding.

    Returns:
        The same tensors, each [other rows, other length]; every token is in exactly one place.
    """
    import torch

    groups = sorted(_groups(rows["parent_ids"]), key=lambda group: group[1] - group[2])  # longest first, else in order
    if not groups:
        return rows
    length = -(-max(end - start for _, start, end in groups) // MULTIPLE) * MULTIPLE
    free: list[int] = []
    places: list[tuple[int, int]] = []
    for _, start, end in groups:
        row = next((number for number, room in enumerate(free) if room >= end - start), len(free))
        if row == len(free):
            free.append(length)
        places.append((row, length - free[row]))
        free[row] -= end - start
    laid = {name: torch.full((len(free), length), _NOTHING.get(name, 0), dtype=t.dtype) for name, t in rows.items()}
    for (source, start, end), (row, place) in zip(groups, places, strict=True):
        for name, tensor in rows.items():
            laid[name][row, place : place + end - start] = tensor[source, start:end]
    return laid


def without_padding(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows, cut where the longest of them ends; each begins with what it holds."""
    held = (rows["parent_ids"] != -1).any(dim=0).sum()
    length = -(-max(int(held), 1) // MULTIPLE) * MULTIPLE
    return {name: tensor[:, :length] for name, tensor in rows.items()}


def _groups(parent_ids: torch.Tensor) -> list[tuple[int, int, int]]:
    """(row, start, end) of every run of equal ids that are no padding."""
    groups: list[tuple[int, int, int]] = []
    for row, ids in enumerate(parent_ids.tolist()):
        start = 0
        for place in range(1, len(ids) + 1):
            if place == len(ids) or ids[place] != ids[start]:
                if ids[start] != -1:
                    groups.append((row, start, place))
                start = place
    return groups


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of `size`, the last one maybe shorter, that cover `count`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
