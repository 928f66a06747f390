"""Branches: where a window is trained again without the chain being rewritten.

A branch is a chain of its own, `<chain>+<name>`, that begins at the checkpoint which the window was, or would have
been, trained from; it may go on with later windows. The chain's head never moves because of one. Nothing is trained
here, and what a branch is good for is decided by whoever asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from psycopg import Connection

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import branch_chain
from babylon_assets.domain.windows import short_id
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class BranchDataset:
    """A dataset of a window that was scored and frozen for a branch, while the window keeps its own.

    Attributes:
        id: of the dataset.
        reward_weights: of each scorer that its rewards are made by, with its version, such as `outcome@1`.
    """

    id: str
    reward_weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a window's training goes.

    Attributes:
        chain: the branch's chain; it need not have begun.
        parent: what is trained from.
        checkpoint: what was trained there before on the very dataset; None when it is to be trained.
        reward_weights: as of `BranchDataset`; None where the window's own dataset is trained on.
    """

    chain: str
    parent: Checkpoint
    checkpoint: Checkpoint | None
    reward_weights: Mapping[str, float] | None = None


def branch_for(conn: Connection[Any], chain: str, window: str, dataset_id: str, name: str | None) -> Branch:
    """The branch of a main chain for a window and a dataset of it.

    Args:
        name: of the branch: one that is new begins at the window's parent, one that is there goes on from its own
            newest checkpoint. None takes the window's own name, with a number where a branch of that name has trained
            the window on other data.

    Raises:
        PermanentError: the chain has not passed the window, the branch has, or the name is not allowed.
    """
    parent = _parent_of(conn, chain, window)
    if name is None:
        return next(
            branch
            for named in _names(window)
            if (branch := _on(conn, branch_chain(chain, named), window, dataset_id, parent)) is not None
        )
    if not _NAME.fullmatch(name):
        raise PermanentError(f"{name!r} cannot name a branch; use letters, digits, '.', '_' and '-'")
    branch = _on(conn, branch_chain(chain, name), window, dataset_id, parent)
    if branch is None:
        raise PermanentError(
            f"the branch {branch_chain(chain, name)} has trained {window}, or a later window, already; "
            "give another name with --name"
        )
    return branch


def _names(window: str) -> Iterator[str]:
    """`2026-11-05T14`, `2026-11-05T14.2`, `2026-11-05T14.3`, and so on."""
    stem = short_id(window)
    yield stem
    yield from (f"{stem}.{number}" for number in count(2))


def _parent_of(conn: Connection[Any], chain: str, window: str) -> Checkpoint:
    """The checkpoint that the chain's checkpoint of the window was trained from, or would have been."""
    own, head = checkpoints.by_window(conn, chain, window), checkpoints.head(conn, chain)
    if own is not None and own.parent_id is not None:
        parent = checkpoints.get(conn, own.parent_id)
    else:
        passed = head is not None and head.window_id is not None and head.window_id > window
        parent = checkpoints.newest_before(conn, chain, window) if passed else None
    if parent is None:
        raise PermanentError(f"the chain {chain} has not passed {window}; train it without --branch")
    return parent


def _on(conn: Connection[Any], chain: str, window: str, dataset_id: str, parent: Checkpoint) -> Branch | None:
    """A branch of this name for the window; None when it has trained the window on other data, or a later window."""
    head, own = checkpoints.head(conn, chain), checkpoints.by_window(conn, chain, window)
    if own is not None and own.parent_id is not None and own.dataset_id == dataset_id:
        return Branch(chain, checkpoints.get(conn, own.parent_id) or parent, own)
    if head is None:
        return Branch(chain, parent, None)
    behind = head.window_id is not None and head.window_id < window
    return Branch(chain, head, None) if behind else None
